"""Launch sizes: every element has a thread, and all blocks of the persistent kernels can be on the GPU at once."""

import itertools

import pytest

from lstm_dist.cuda import launch_sizes


@pytest.mark.parametrize("n", [1, 255, 256, 257, 10**6])
def test_each_element_has_a_thread(n: int):
    (blocks, _), threads = launch_sizes.each(n)
    assert (blocks - 1) * threads < n <= blocks * threads
    (rows, blocks), threads = launch_sizes.rows_by_columns(7, n)
    assert rows == 7
    assert (blocks - 1) * threads < n <= blocks * threads


# Multiprocessors of a GTX 1060, T4, V100, A100 and H100.
PROCESSORS = (10, 40, 80, 108, 132)


@pytest.mark.parametrize(("hidden_size", "streams"), itertools.product((32, 64, 256, 512, 1024), (1, 5, 32, 128)))
@pytest.mark.parametrize("processors", PROCESSORS)
def test_blocks_of_the_persistent_kernels_fit_the_gpu(hidden_size: int, streams: int, processors: int):
    size = launch_sizes.persistent(hidden_size, streams, processors)
    if hidden_size // 8 > processors:
        assert size is None
        return
    assert size is not None
    blocks, groups = size.blocks
    assert blocks * groups <= processors
    assert blocks * 8 == hidden_size
    of_a_group = -(-streams // groups)
    assert (groups - 1) * of_a_group < streams, "no group without streams"


@pytest.mark.parametrize(
    ("hidden_size", "streams", "processors", "blocks"),
    [(256, 32, 132, (32, 4)), (512, 32, 132, (64, 2)), (1024, 128, 132, (128, 1)), (64, 3, 132, (8, 3))],
)
def test_groups_use_the_multiprocessors(hidden_size: int, streams: int, processors: int, blocks: "tuple[int, int]"):
    assert launch_sizes.persistent(hidden_size, streams, processors) == (blocks, 256)


@pytest.mark.parametrize("hidden_size", [1, 40, 250, 1056, 2048])
def test_sizes_without_persistent_kernels(hidden_size: int):
    assert launch_sizes.persistent(hidden_size, 32, 1000) is None


@pytest.mark.parametrize("processors", PROCESSORS)
def test_largest_size_is_the_largest_that_fits(processors: int):
    fitting = [H for H in range(1, 2049) if launch_sizes.persistent(H, 1, processors)]
    assert launch_sizes.largest_persistent(processors) == max(fitting)
