"""What happens between the steps: the state's way, the order of the exchange, and where training stops."""

import threading

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.batches import ConsecutiveBatches
from lstm_dist.exchange import SettledError
from lstm_dist.model import CharLSTM, initial_parameters
from lstm_dist.trainer import Schedule, train, train_step
from tests.alone import Alone, Record

V, H, B, T = 9, 4, 3, 5
TOKENS = np.random.default_rng(0).integers(0, V, B * (T * 4 + 1)).astype(np.int32)


class Watched(CharLSTM):
    """A CharLSTM that keeps the state that each window started and ended with."""

    def __init__(self):
        super().__init__(V, H, mx.cpu())
        self.load(initial_parameters(V, H, 0), "test")
        self.starts, self.ends = [], []

    def loss_and_gradients(self, inputs, targets, state):
        loss, after = super().loss_and_gradients(inputs, targets, state)
        self.starts.append(np.stack([s.asnumpy() for s in state]))
        self.ends.append(np.stack([s.asnumpy() for s in after]))
        return loss, after


def schedule(**changes):
    numbers = {
        "epochs": 2, "learning_rate": 0.01, "max_norm": 5.0, "gradient_scale": 1.0, "resets_every_window": False,
        "chars_per_step": B * T, "log_every": 2, "wire_dtype": "float32",
    }  # fmt: skip
    return Schedule(**{**numbers, **changes})


def run(model, log=None, samples=None, **changes):
    log = log or Record()
    batches = ConsecutiveBatches(TOKENS, B, T)
    train(model, batches, Alone(), schedule(**changes), log, (samples if samples is not None else []).append)
    return log


def test_state_is_carried_through_an_epoch_and_zeroed_at_its_start():
    model = Watched()
    run(model)
    assert len(model.starts) == 8
    for step in range(8):
        if step % 4 == 0:
            assert not model.starts[step].any()
        else:
            np.testing.assert_array_equal(model.starts[step], model.ends[step - 1])
            assert model.starts[step].any()


def test_state_can_be_zeroed_before_every_window():
    model = Watched()
    run(model, resets_every_window=True)
    assert not any(start.any() for start in model.starts)
    assert all(end.any() for end in model.ends)


def test_the_average_comes_before_the_clip_and_the_clip_before_the_step():
    class Doubling(Alone):
        def average_(self, array, name, scale=1.0, wire_dtype="float32"):
            assert (name, wire_dtype) == ("gradients", "float32")
            array *= 2 * scale

    window = next(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    reference = Watched()
    reference.loss_and_gradients(window.inputs, window.targets, reference.zero_state(B))
    gradient = 2 * 3.0 * reference.gradients.flat.asnumpy()
    norm = np.linalg.norm(gradient)
    expected = reference.parameters.flat.asnumpy() - 0.01 * gradient * 0.25 / norm

    model = Watched()
    numbers = schedule(gradient_scale=3.0, max_norm=0.25)
    _, stats = train_step(model, window, model.zero_state(B), Doubling(), numbers)
    assert stats.grad_norm.asscalar() == pytest.approx(norm, rel=1e-5)
    assert norm > 0.25
    np.testing.assert_allclose(model.parameters.flat.asnumpy(), expected, rtol=1e-5, atol=1e-7)


def test_what_is_shown_and_when_samples_are_written():
    samples = []
    log = run(Watched(), samples=samples, epochs=5)
    assert log.shown == samples == [2, 4, 5], "every log_every epochs, and the last"
    assert log.chars == 5 * 4 * B * T
    assert len(log.losses) == 5
    assert log.losses[0] == pytest.approx(np.log(V), rel=0.02)
    assert log.losses == sorted(log.losses, reverse=True)


def test_the_mean_is_over_all_characters():
    log = run(Watched(), chars_per_step=2 * B * T)
    assert log.losses[0] == pytest.approx(np.log(V) / 2, rel=0.02), "half of the characters were another worker's"


@pytest.mark.parametrize("where", ["W_xi", "b", "b_y"])
def test_numbers_that_are_not_finite_stop_the_run(where):
    model = Watched()
    view = model.parameters.views.get(where, model.parameters.views["W_x"])
    view[0] = float("nan")
    log = Record()
    with pytest.raises(SettledError, match=r"epoch 1: training has diverged .*--learning-rate"):
        run(model, log)
    assert not log.losses


WAITING = ["MXNDArrayWaitToRead", "MXNDArrayWaitToWrite", "MXNDArrayWaitAll", "MXNDArraySyncCopyToCPU"]


def test_a_step_asks_for_nothing_that_waits(monkeypatch):
    model, windows = CharLSTM(V, H, mx.cpu()), list(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    state, waited = model.zero_state(B), []

    def count(name):
        original = getattr(mx.base._LIB, name)
        monkeypatch.setattr(mx.base._LIB, name, lambda *arguments: waited.append(name) or original(*arguments))

    for name in WAITING:
        count(name)
    for window in windows:
        state, stats = train_step(model, window, state, Alone(), schedule())
    assert waited == []
    stats.loss.asscalar()
    assert waited == ["MXNDArraySyncCopyToCPU"], "the counting has to see what it is there for"


class Gate(mx.operator.CustomOp):
    """Passes its input on when the test allows it."""

    opened = threading.Event()

    def forward(self, is_train, req, in_data, out_data, aux):  # noqa: ARG002
        assert Gate.opened.wait(60)
        self.assign(out_data[0], req[0], in_data[0])


@mx.operator.register("lstm_dist_test_gate")
class GateProperty(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):  # noqa: ARG002
        return Gate()


def test_a_step_returns_before_what_it_needs_has_been_computed():
    model, windows = CharLSTM(V, H, mx.cpu()), list(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    state, _ = train_step(model, windows[0], model.zero_state(B), Alone(), schedule())
    mx.nd.waitall()
    mx.nd.Custom(model.parameters.flat, op_type="lstm_dist_test_gate", out=model.parameters.flat)
    opener = threading.Timer(30, Gate.opened.set)  # so that a step which waits fails the test and does not hang it
    opener.start()
    for window in windows[1:]:
        state, stats = train_step(model, window, state, Alone(), schedule())
    was_open = Gate.opened.is_set()
    Gate.opened.set()
    opener.cancel()
    assert not was_open
    assert np.isfinite(stats.loss.asscalar())


def resident_kb():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_memory_does_not_grow_with_the_steps_of_an_epoch():
    class Repeated(ConsecutiveBatches):
        def epoch(self, epoch):
            for _ in range(300):
                yield from super().epoch(epoch)

    model, log = CharLSTM(V, H, mx.cpu()), Record()
    model.load(initial_parameters(V, H, 0), "test")
    batches = Repeated(TOKENS, B, T)
    train(model, batches, Alone(), schedule(epochs=1), log, lambda _: None)
    before = resident_kb()
    train(model, batches, Alone(), schedule(epochs=1), log, lambda _: None)
    assert log.chars == 2 * 1200 * B * T
    assert resident_kb() - before < 500
