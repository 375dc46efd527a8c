"""Every collective, with inputs that depend on the rank and results in closed form, for any number of ranks."""

import hashlib
import re

import numpy as np
import pytest
from mxnet import nd

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.errors import ExitStatus, UserError


def test_average_is_the_mean_times_the_scale(world):
    n = world.size
    array = nd.array([world.rank + 1.0, 10.0 * world.rank, 7.0])
    world.average_(array, "average", scale=3.0)
    np.testing.assert_allclose(array.asnumpy(), [3 * (n + 1) / 2, 3 * 10 * (n - 1) / 2, 21.0], rtol=1e-6)


def test_average_without_a_scale_is_the_mean(world):
    array = nd.array([2.0**world.rank])
    world.average_(array, "average_plain")
    np.testing.assert_allclose(array.asnumpy(), [(2.0**world.size - 1) / world.size], rtol=1e-6)


def test_average_in_float16_is_rounded_and_does_not_overflow(world):
    n = world.size
    # The sum of the last elements exceeds float16's maximum of 65,504, their mean does not.
    array = nd.array([world.rank + 1.0, 0.1, 60_000.0])
    world.average_(array, "average_half", scale=1.0, wire_dtype="float16")
    assert array.dtype == np.float32
    np.testing.assert_allclose(array.asnumpy(), [(n + 1) / 2, 0.1, 60_000.0], rtol=n * 2.0**-11)
    if n > 1:
        assert array.asnumpy()[1] != np.float32(0.1), "0.1 was not rounded, so it was not sent in float16"


def test_repeated_average_of_a_large_vector_is_bit_identical(world):
    # The summation order is fixed, so the same inputs give the same bits, which are the same on every rank.
    values = np.random.default_rng(world.rank).normal(size=300_001).astype(np.float32)
    results = []
    for repeat in range(3):
        array = nd.array(values)
        world.average_(array, f"repeat{repeat}")
        results.append(array.asnumpy().tobytes())
    assert results[0] == results[1] == results[2]
    digests = world.allgather_object(hashlib.sha256(results[0]).hexdigest(), "bits")
    assert digests == digests[:1] * world.size
    expected = sum(np.random.default_rng(r).normal(size=300_001) for r in range(world.size)) / world.size
    np.testing.assert_allclose(np.frombuffer(results[0], np.float32), expected, rtol=1e-4, atol=1e-6)


def test_broadcast_returns_the_bits_of_the_root(world):
    root = [5.0, 0.0, -0.0, 1e-45, -3e38, np.inf]
    array = nd.array(root if world.is_root else [world.rank, np.nan, 1.0, -1.0, np.inf, -np.inf])
    world.broadcast_(array, "broadcast")
    assert array.asnumpy().tobytes() == np.array(root, np.float32).tobytes()


def test_sum_is_in_float64(world):
    n = world.size
    total = world.sum([1e9 + world.rank, 1e-7], "sum")
    np.testing.assert_allclose(total, [n * 1e9 + n * (n - 1) / 2, n * 1e-7], rtol=1e-15)


def test_allgather_object_keeps_order_length_and_characters(world):
    texts = world.allgather_object("字" * world.rank + '"\n\\', "gather")
    assert texts == ["字" * rank + '"\n\\' for rank in range(world.size)]
    assert world.allgather_object("", "gather_nothing") == [""] * world.size


def test_rank_root_and_local_rank_are_consistent(world):
    assert world.allgather_object(world.rank, "ranks") == list(range(world.size))
    assert world.is_root == (world.rank == 0)
    assert 0 <= world.local_rank < world.size


def test_run_on_all_returns_each_ranks_own_result(world):
    assert world.run_on_all(lambda: world.rank * 2, "run_on_all") == world.rank * 2


def test_error_on_all_ranks_is_reported_without_a_rank(world):
    def prepare() -> None:
        raise UserError("--corpus x: no such file")

    with pytest.raises(CollectiveError, match="^--corpus x: no such file$"):
        world.run_on_all(prepare, "run_on_all_ranks")


def test_error_on_the_last_rank_stops_every_rank(world):
    def prepare() -> None:
        if world.rank == world.size - 1:
            raise UserError("--corpus x: no such file")

    suffix = "" if world.size == 1 else rf" \(rank {world.size - 1} of {world.size}\)"
    with pytest.raises(CollectiveError, match=f"^--corpus x: no such file{suffix}$"):
        world.run_on_all(prepare, "run_on_all_last")


def test_ranks_with_different_facts_are_refused(world):
    world.require_equal({"epochs": "7", "corpus": "a"}, "equal")
    mine = {"epochs": "7", "corpus": "a" if world.rank == 0 else "b" * 50, **({"new": "1"} if world.rank == 2 else {})}
    if world.size == 1:
        world.require_equal(mine, "start")
        return
    with pytest.raises(CollectiveError) as caught:
        world.require_equal(mine, "start")
    message = str(caught.value)
    assert caught.value.status == ExitStatus.BAD_CONFIG
    assert re.search(
        r"^start: ranks differ: rank 1 \(\S+\) has corpus bbbbbbbbbbbb\.\.\., rank 0 \(\S+\) has a[;:]", message
    )
    assert "epochs" not in message
    assert bool(re.search(r"rank 2 \(\S+\) has new 1, rank 0 \(\S+\) has none:", message)) == (world.size > 2)


def test_gather_rows_concatenates_rows_in_rank_order(world):
    mine = nd.array(np.full((world.rank + 1, 2), world.rank, np.float32))
    expected = np.concatenate([np.full((r + 1, 2), r, np.float32) for r in range(world.size)])
    np.testing.assert_array_equal(world.gather_rows(mine, "rows"), expected)


def test_broadcast_object_returns_the_text_of_the_root(world):
    assert world.broadcast_object(f"分开 {world.rank}", "share") == "分开 0"


def test_error_on_the_root_stops_every_rank(world):
    def act() -> None:
        raise UserError("the disk is full", ExitStatus.CANNOT_WRITE)

    with pytest.raises(CollectiveError, match="^the disk is full$") as caught:
        world.run_on_root(act, "run_on_root")
    assert caught.value.status == ExitStatus.CANNOT_WRITE
    assert world.run_on_root(lambda: 7, "run_on_root_again") == (7 if world.is_root else None)
