"""Loss and gradients of a window, and refusal of weights that do not fit."""

import math

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.errors import UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.parameters import initial_parameters

V, H = 7, 5


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
