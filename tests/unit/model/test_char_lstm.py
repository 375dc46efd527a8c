"""Memory layout of the parameters, loss and gradients of a window, and refusal of weights that do not fit."""

import math

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.errors import UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.flat_buffer import GradientBuffer, ParameterBuffer
from lstm_dist.model.parameters import initial_parameters, parameter_shapes

V, H = 7, 5


@pytest.mark.parametrize("layers", [1, 3])
def test_named_parameters_round_trip_through_fused_memory(layers):
    flat = ParameterBuffer(V, H, mx.cpu(), layers=layers)
    named = {
        name: np.random.default_rng(k).normal(size=shape).astype(np.float32)
        for k, (name, shape) in enumerate(parameter_shapes(V, H, layers).items())
    }
    flat.from_named(named)
    assert set(flat.to_named()) == set(named)
    for name, value in flat.to_named().items():
        np.testing.assert_array_equal(value, named[name], err_msg=name)
    assert flat.flat.size == sum(v.size for v in named.values())
    assert sum(view.size for view in GradientBuffer(V, H, mx.cpu(), layers=layers).joint.values()) == flat.others.size
    flat.flat[:] = 0
    assert not any(value.any() for value in flat.to_named().values())
    np.testing.assert_array_equal(flat.views["W_h"].shape, (H, 4 * H))


def test_untrained_loss_is_that_of_a_uniform_prediction():
    model = CharLSTM(V, H, mx.cpu())
    model.load(initial_parameters(V, H, 0), "test")
    text = np.random.default_rng(0).integers(0, V, (3, 5))
    loss, _ = model.loss_and_gradients(text[:, :-1], text[:, 1:], model.zero_state(3))
    assert loss.asscalar() / 12 == pytest.approx(math.log(V), rel=1e-3)


def test_gradients_are_overwritten_not_added():
    model = CharLSTM(V, H, mx.cpu())
    model.load(initial_parameters(V, H, 0), "test")
    text = np.random.default_rng(0).integers(0, V, (3, 5))
    grads = []
    for _ in range(2):
        model.loss_and_gradients(text[:, :-1], text[:, 1:], model.zero_state(3))
        grads.append(model.gradients.flat.asnumpy())
    np.testing.assert_array_equal(*grads)
    assert grads[0].any()


def test_alternating_window_shapes_do_not_change_the_loss():
    model = CharLSTM(V, H, mx.cpu())
    model.load(initial_parameters(V, H, 0), "test")
    text = np.random.default_rng(0).integers(0, V, (3, 5))

    def loss(rows: int) -> float:
        return model.loss_and_gradients(text[:rows, :-1], text[:rows, 1:], model.zero_state(rows))[0].asscalar()

    three, two = loss(3), loss(2)
    assert (loss(3), loss(2)) == (three, two)
    assert three > two


def test_loss_of_an_improbable_target_is_finite():
    model = CharLSTM(V, H, mx.cpu())
    named = initial_parameters(V, H, 0)
    named["b_y"][1] = 500.0
    model.load(named, "test")
    text = np.full((2, 4), 2)
    loss, _ = model.loss_and_gradients(text[:, :-1], text[:, 1:], model.zero_state(2))
    assert loss.asscalar() == pytest.approx(6 * 87.336, rel=1e-4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.pop("W_ho"), r"weights.st: parameter W_ho is missing, this model needs \(5, 5\)"),
        (lambda p: p.update(extra=np.zeros(3)), r"parameter extra has shape \(3,\), this model has none of that name"),
        (lambda p: p.update(W_xi=p["W_xi"].T), r"parameter W_xi has shape \(5, 7\), this model needs \(7, 5\)"),
    ],
)
def test_weights_that_do_not_fit_are_refused_by_name(change, message):
    named = initial_parameters(V, H, 0)
    change(named)
    with pytest.raises(UserError, match=message):
        CharLSTM(V, H, mx.cpu()).load(named, "weights.st")
