"""Which data leaves the device in a training run with the model for GPUs."""

import gc
from typing import List, Tuple

import mxnet as mx
import pytest

from lstm_dist.data.batching import ConsecutiveBatches
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import initial_parameters
from lstm_dist.train.callbacks import Callbacks
from lstm_dist.train.trainer import Trainer
from tests.support.cuda_device import DEVICE
from tests.support.cuda_model import cuda_model
from tests.support.fake_world import FakeWorld, Record
from tests.support.small_training import TOKENS, B, H, T, V, schedule

HOST = mx.cpu()


class Recorder:
    """Records the shape of every copy from the device to the host, and counts the numbers copied to the device."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.to_host: List[Tuple[int, ...]] = []
        self.to_device = 0
        for kind in (mx.nd.NDArray, mx.nd.sparse.CSRNDArray):
            asnumpy, copyto = kind.asnumpy, kind.copyto
            patch.setattr(kind, "asnumpy", lambda array, do=asnumpy: self._leaves(array) or do(array))
            patch.setattr(kind, "copyto", lambda array, to, do=copyto: self._moves(array, to) or do(array, to))

    def _leaves(self, array: mx.nd.NDArray) -> None:
        if array.context == DEVICE:
            self.to_host.append(array.shape)

    def _moves(self, array: mx.nd.NDArray, to: object) -> None:
        target = to if isinstance(to, mx.Context) else to.context  # type: ignore[attr-defined]
        if target == HOST:
            self._leaves(array)
        elif array.context == HOST:
            self.to_device += array.size


def on_the_host() -> int:
    """Return the number of live arrays on the host."""
    gc.collect()
    arrays = [thing for thing in gc.get_objects() if isinstance(thing, mx.nd.NDArray)]
    return len([array for array in arrays if array.context == HOST])


def test_each_step_copies_four_numbers_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step copies the loss, the norm and the control flags of the previous step to the host, and nothing else."""
    before = on_the_host()
    with pytest.MonkeyPatch.context() as patch:
        model = cuda_model(V, H)
        model.load(initial_parameters(V, H, 0), "test")
        recorder = Recorder(patch)
        batches = ConsecutiveBatches(TOKENS, B, T)
        Trainer(model, batches, FakeWorld(), schedule(epochs=2), Record(), Callbacks()).run()
    steps = 2 * batches.steps_per_epoch
    assert recorder.to_host == [(2 + FLAGS,)] * steps
    # Copied to the device: the characters of a window, its targets, the arrays that sort them and the characters whose
    # rows are updated; zero states at both epochs and for two checkpoints. Never a weight.
    assert recorder.to_device <= steps * (3 * B * T + V + 1 + V) + 4 * (2 * B * H)
    assert on_the_host() == before, "the arrays of the model must be on its device"
    recorder, array = Recorder(monkeypatch), mx.nd.empty(3, ctx=DEVICE)
    array.as_in_context(HOST)
    assert recorder.to_host == [(3,)], "the recorder must detect a copy"
