"""The model for GPUs against float64 references and the model for CPUs."""

from typing import Dict, Tuple

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.cuda_lstm import CudaLSTM
from lstm_dist.model.language_model import LanguageModel, LSTMState
from lstm_dist.model.parameters import parameter_shapes
from tests.support.cuda_device import DEVICE, ORDERS
from tests.support.cuda_model import RECURRENCES, cuda_model
from tests.support.recorded_operators import RecordedOperators
from tests.support.reference import window_loss

pytestmark = pytest.mark.kernels

V = 11
SIZES = [("loop", 5), ("loop", 32), ("persistent", 32), ("persistent", 64)]
# (streams, steps); persistent kernels compute 8 streams at a time, in up to 2 groups of blocks for 32 hidden units.
SHAPES = [(1, 1), (3, 4), (21, 3)]


def random_parameters(hidden_size: int, layers: int = 1) -> Dict[str, np.ndarray]:
    """Return parameters much larger than initial ones, so that the gates are not in their linear range."""
    rng = np.random.default_rng(hidden_size)
    scale = 2 / hidden_size**0.5
    return {k: rng.normal(0, scale, shape) for k, shape in parameter_shapes(V, hidden_size, layers).items()}


def load(model: LanguageModel, named: Dict[str, np.ndarray]) -> None:
    model.load({name: values.astype(np.float32) for name, values in named.items()}, "test")


def random_window(streams: int, steps: int, units: int) -> Tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(streams)
    text = rng.integers(0, V, (streams, steps + 1))
    return text[:, :-1], text[:, 1:], *rng.normal(0, 0.5, (2, streams, units))


def state_of(model: LanguageModel, h: np.ndarray, c: np.ndarray) -> LSTMState:
    return model.make_state(h.astype(np.float32), c.astype(np.float32))


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("recurrence", "hidden_size"), SIZES)
def test_loss_state_and_gradients_match_a_float64_reference(recurrence, hidden_size, shape, layers):
    """The gradient of each parameter is compared with finite differences along a random direction."""
    named, rng = random_parameters(hidden_size, layers), np.random.default_rng(1)
    inputs, targets, h, c = random_window(*shape, layers * hidden_size)
    model = cuda_model(V, hidden_size, layers, recurrence)
    load(model, named)
    loss, after = model.loss_and_gradients(inputs, targets, state_of(model, h, c))
    expected, h_after, c_after = window_loss(named, inputs, targets, h, c)
    np.testing.assert_allclose(loss.asscalar(), expected, rtol=2e-6)
    np.testing.assert_allclose(after.h.asnumpy(), h_after, rtol=0, atol=2e-6)
    np.testing.assert_allclose(after.c.asnumpy(), c_after, rtol=0, atol=5e-6)
    for name, gradient in model.get_gradients().items():
        direction = rng.normal(size=gradient.shape)
        ahead, behind = (
            window_loss({**named, name: named[name] + step * direction}, inputs, targets, h, c)[0]
            for step in (1e-5, -1e-5)
        )
        along = (gradient * direction).sum(dtype=np.float64)
        np.testing.assert_allclose(along, (ahead - behind) / 2e-5, rtol=1e-4, atol=1e-4, err_msg=name)


@pytest.mark.parametrize("layers", [1, 2])
@pytest.mark.parametrize(("recurrence", "hidden_size"), SIZES)
def test_thirty_steps_are_those_of_the_model_for_cpus(recurrence, hidden_size, layers):
    """Steps with all rows of W_x, and with the rows of the window's characters alone, in turns."""
    model, other = cuda_model(V, hidden_size, layers, recurrence), CharLSTM(V, hidden_size, mx.cpu(), layers)
    named, text = random_parameters(hidden_size, layers), np.random.default_rng(2).integers(0, V, (5, 30 * 4 + 1))
    ends = []
    for one in (model, other):
        load(one, named)
        state, rows = one.zero_state(5), []
        for step in range(30):
            window = text[:, step * 4 : step * 4 + 5]
            inputs, targets = window[:, :-1], window[:, 1:]
            characters = np.unique(inputs) if step % 2 else None
            requests = ControlFlags(checkpoint=step == 3, report=step in (3, 5), evaluate=step == 7)
            loss, state = one.loss_and_gradients(inputs, targets, state, requests, characters)
            norm, factor = one.clip_by_global_norm(2.0 if step % 3 else 1e4)  # clipped or not
            one.sgd_update_(0.1 if step % 3 else 0.01, factor)
            rows.append(one.step_numbers(loss, norm).asnumpy())
        ends.append((np.array(rows), one.get_parameters()))
    (numbers, parameters), (expected_numbers, expected) = ends
    np.testing.assert_allclose(numbers, expected_numbers, rtol=1e-5)
    assert numbers[:, 1].min() > 2
    assert numbers[:, 2:].tolist() == [[0, k == 3, k in (3, 5), k == 7] for k in range(30)]
    for name, values in parameters.items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("order", ["forward", *ORDERS])
@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_bits_do_not_depend_on_the_order_of_threads_and_blocks(recurrence, order):
    inputs, targets, h, c = random_window(21, 5, 64)
    results = []
    for one in ("forward", order):
        model = cuda_model(V, 64, 1, recurrence, 17, one)
        load(model, random_parameters(64))
        loss, after = model.loss_and_gradients(inputs, targets, state_of(model, h, c))
        norm, factor = model.clip_by_global_norm(1.0)
        model.sgd_update_(0.1, factor)
        results.append([loss, *after, norm, model.exchanged, model.weights])
    for first, second in zip(*results):
        assert first.asnumpy().tobytes() == second.asnumpy().tobytes()


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_a_step_needs_only_our_kernels_products_and_copies(monkeypatch: pytest.MonkeyPatch, recurrence):
    """MXNet has no machine code for its own kernels on many GPUs."""
    model = cuda_model(V, 32, 2, recurrence)
    recorded = RecordedOperators(DEVICE, monkeypatch)
    load(model, random_parameters(32, 2))
    inputs, targets, *_ = random_window(3, 4, 64)
    loss, state = model.loss_and_gradients(inputs, targets, model.zero_state(3), NO_REQUEST, np.unique(inputs))
    norm, factor = model.clip_by_global_norm(1.0)
    model.sgd_update_(0.1, factor)
    model.step_numbers(loss, norm).asnumpy()
    model.loss(inputs[1:], targets[1:], LSTMState(*(part[1:] for part in state)))
    model.make_state(*(part.asnumpy() for part in state))
    model.reader().read(3)
    model.get_parameters()
    model.get_gradients()
    assert recorded.names == {"dot", "_copyto"}


def test_recorder_sees_an_operator_on_the_device_only(monkeypatch: pytest.MonkeyPatch):
    device = mx.cpu(1)  # of which MXNet has kernels
    recorded = RecordedOperators(device, monkeypatch)
    host = mx.nd.ones(3) + 1
    assert recorded.names == set()
    assert (host.as_in_context(device) * 2).asnumpy().tolist() == [4, 4, 4]
    assert recorded.names == {"_copyto", "_mul_scalar"}


def test_evaluation_leaves_gradients_and_flags_unchanged():
    model = cuda_model(V, 5)
    load(model, random_parameters(5))
    inputs, targets, h, c = random_window(3, 4, 5)
    loss, _ = model.loss_and_gradients(inputs, targets, state_of(model, h, c), ControlFlags(stop=True))
    before = model.exchanged.asnumpy()
    again, _ = model.loss(inputs, targets, state_of(model, h, c))
    assert again.asnumpy().tobytes() == loss.asnumpy().tobytes()
    model.loss(targets[:, :2], inputs[:, :2], model.zero_state(3))
    assert model.exchanged.asnumpy().tobytes() == before.tobytes()


def test_loss_that_is_not_finite_sets_all_flags_to_nan():
    model = cuda_model(V, 5)
    named = random_parameters(5)
    load(model, named)
    model.set_parameters({**named, "b_y": np.full(V, np.nan)})
    inputs, targets, *_ = random_window(3, 4, 5)
    loss, _ = model.loss_and_gradients(inputs, targets, model.zero_state(3))
    assert np.isnan(loss.asscalar())
    assert np.isnan(model.exchanged.asnumpy()[:2]).all()


@pytest.mark.parametrize("recurrence", RECURRENCES)
def test_logits_of_a_text_are_those_of_the_model_for_cpus(recurrence):
    models: Tuple[CudaLSTM, CharLSTM] = cuda_model(V, 32, 2, recurrence), CharLSTM(V, 32, mx.cpu(), 2)
    for model in models:
        load(model, random_parameters(32, 2))
    readers = [model.reader() for model in models]
    for token in (3, 1, 10, 3):
        found, expected = (reader.read(token) for reader in readers)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
