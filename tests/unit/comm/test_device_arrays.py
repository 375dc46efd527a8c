"""The exchange of arrays on a GPU, by Horovod with and without CUDA and by one worker: only our kernels and copies.

MXNet's second CPU device stands in for the GPU.
"""

from typing import Any, List, Tuple

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.single_worker import SingleWorker
from tests.support.cuda_device import DEVICE
from tests.support.device_arrays import use_kernels
from tests.support.recorded_operators import RecordedOperators

pytestmark = pytest.mark.kernels

HOST = mx.cpu()
VALUES = np.array([1.0, -0.1, 2.0 / 3.0, 1e-7, 60_000.0], np.float32)


class TwoRanks:
    """Horovod, on a rank of two; the other one has the same values.

    Attributes:
        given: context and values of each array that was given to it.
    """

    Average, Sum = "average", "sum"

    def __init__(self, has_cuda: bool, rank: int = 0) -> None:
        self.given: List[Tuple[mx.Context, np.ndarray]] = []
        self.nccl_built = self.cuda_built = lambda: has_cuda
        self.rank = self.local_rank = lambda: rank
        self.size = self.local_size = lambda: 2

    def allreduce_(self, array: mx.nd.NDArray, op: str, name: str, postscale_factor: float = 1.0) -> None:  # noqa: ARG002
        # On a GPU, Horovod scales by a kernel that may be unable to run there, which it does not report.
        assert array.context == HOST or (op, postscale_factor) == (self.Sum, 1.0)
        self.given.append((array.context, array.asnumpy()))
        array[:] = array.asnumpy() * array.dtype(postscale_factor * (2 if op == self.Sum else 1))

    def allgather(self, array: mx.nd.NDArray, name: str) -> mx.nd.NDArray:  # noqa: ARG002
        self.given.append((array.context, array.asnumpy()))
        return mx.nd.array(np.concatenate([array.asnumpy()] * 2), array.context)


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> RecordedOperators:
    use_kernels(monkeypatch)
    monkeypatch.setattr(HorovodWorld, "_is_here", staticmethod(lambda array: array.context == HOST))
    return RecordedOperators(DEVICE, monkeypatch)


def world_of(horovod: Any) -> HorovodWorld:
    return HorovodWorld(horovod, None)


@pytest.mark.parametrize("has_cuda", [False, True])
@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_average(operators: RecordedOperators, has_cuda: bool, wire_dtype: str) -> None:
    horovod, array = TwoRanks(has_cuda), mx.nd.array(VALUES, DEVICE)
    world_of(horovod).average_(array, "gradients", 0.3, wire_dtype)
    ((context, sent),) = horovod.given
    assert context == (DEVICE if has_cuda else HOST)
    assert sent.dtype == wire_dtype
    expected = VALUES * np.float32(0.3)
    if wire_dtype == "float16":
        expected = 2 * (VALUES * np.float32(0.3 / 2)).astype(np.float16)
    assert array.context == DEVICE
    np.testing.assert_array_equal(array.asnumpy(), expected.astype(np.float32))
    assert operators.names <= {"_copyto"}


@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_average_through_host_memory(operators: RecordedOperators, wire_dtype: str) -> None:
    horovod, array = TwoRanks(has_cuda=True), mx.nd.array(VALUES, DEVICE)
    world = world_of(horovod)
    assert world.has_nccl
    world.use_host_memory()
    assert not world.has_nccl
    world.average_(array, "gradients", 1.0, wire_dtype)
    assert [context for context, _ in horovod.given] == [HOST]
    assert array.context == DEVICE
    assert operators.names <= {"_copyto"}


@pytest.mark.parametrize("has_cuda", [False, True])
@pytest.mark.parametrize("rank", [0, 1])
def test_broadcast_adds_negative_zeros_to_the_roots_values(
    operators: RecordedOperators, has_cuda: bool, rank: int
) -> None:
    horovod, array = TwoRanks(has_cuda, rank), mx.nd.array(VALUES.reshape(5, 1), DEVICE)
    world_of(horovod).broadcast_(array, "weights")
    ((context, sent),) = horovod.given
    assert context == (DEVICE if has_cuda else HOST)
    expected = VALUES if rank == 0 else np.full(5, -0.0, np.float32)
    assert sent.tobytes() == expected.tobytes()
    assert operators.names <= {"_copyto"}


@pytest.mark.parametrize("has_cuda", [False, True])
def test_rows_are_gathered(operators: RecordedOperators, has_cuda: bool) -> None:
    horovod, array = TwoRanks(has_cuda), mx.nd.array(VALUES.reshape(5, 1), DEVICE)
    np.testing.assert_array_equal(world_of(horovod).gather_rows(array, "state")[:, 0], [*VALUES, *VALUES])
    assert [context for context, _ in horovod.given] == [DEVICE if has_cuda else HOST]
    assert operators.names <= {"_copyto"}


def test_average_of_one_worker(operators: RecordedOperators) -> None:
    array = mx.nd.array(VALUES, DEVICE)
    SingleWorker().average_(array, "gradients", 0.3, "float16")
    np.testing.assert_array_equal(array.asnumpy(), VALUES * np.float32(0.3))
    assert operators.names == set()
