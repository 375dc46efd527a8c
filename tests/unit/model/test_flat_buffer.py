"""Memory layout of parameters and gradients, and the rows of W_x that a batch touches."""

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.model import optim
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.exchange_size import exchanged_numbers
from lstm_dist.model.flat_buffer import GradientBuffer, ParameterBuffer
from lstm_dist.model.parameters import initial_parameters, number_of_parameters, parameter_shapes

V, H = 70, 5


@pytest.mark.parametrize("layers", [1, 3])
def test_named_parameters_round_trip_through_fused_memory(layers):
    buffer = ParameterBuffer(V, H, mx.cpu(), layers=layers)
    named = {
        name: np.random.default_rng(k).normal(size=shape).astype(np.float32)
        for k, (name, shape) in enumerate(parameter_shapes(V, H, layers).items())
    }
    buffer.from_named(named)
    assert set(buffer.to_named()) == set(named)
    for name, value in buffer.to_named().items():
        np.testing.assert_array_equal(value, named[name], err_msg=name)
    assert buffer.flat.size == sum(v.size for v in named.values())
    buffer.others[:] = 0
    for name, value in buffer.to_named().items():
        assert value.any() == (name in ("W_xi", "W_xf", "W_xo", "W_xc")), name
    np.testing.assert_array_equal(buffer.views["W_h"].shape, (H, 4 * H))


@pytest.mark.parametrize("layers", [1, 2])
def test_gradients_have_the_order_of_the_other_parameters(layers):
    gradients, parameters = (kind(V, H, mx.cpu(), layers=layers) for kind in (GradientBuffer, ParameterBuffer))
    assert sum(view.size for view in gradients.joint.values()) == gradients.others.size == parameters.others.size
    gradients.w_x[:] = 0
    gradients.others[:] = mx.nd.arange(gradients.others.size)
    parameters.others[:] = gradients.others
    for name, value in parameters.to_named().items():
        np.testing.assert_array_equal(gradients.to_named()[name], value, err_msg=name)


def test_exchanged_vector_has_one_of_few_lengths_and_space_for_every_row():
    buffer, lengths = GradientBuffer(V, H, mx.cpu()), set()
    for count in range(1, V + 1):
        buffer.select(np.arange(count, dtype=np.int32))
        assert len(buffer.w_x) >= count
        assert buffer.exchanged.size == buffer.flat.size + FLAGS == exchanged_numbers(V, H, 1, count)
        lengths.add(buffer.exchanged.size)
    assert len(lengths) <= 32
    buffer.select(None)
    assert buffer.exchanged.size == exchanged_numbers(V, H, 1, None) == FLAGS + number_of_parameters(V, H)


def trained_once(characters):
    """Return a model after one step on a batch with 3, 8, 20 and 41, of which 41 is another worker's."""
    model = CharLSTM(V, H, mx.cpu())
    model.load(initial_parameters(V, H, 0), "test")
    model.gradients.exchanged[:] = 7.0  # of an earlier step
    inputs = np.array([[3, 8, 3], [20, 20, 8]])
    model.loss_and_gradients(inputs, inputs + 1, model.zero_state(2), characters=characters)
    norm, factor = model.clip_by_global_norm(0.01)
    assert norm.asscalar() > 0.01
    model.sgd_update_(0.5, factor)
    return model


def test_step_with_the_characters_of_the_batch_equals_that_with_all():
    dense, ours = trained_once(None), trained_once(np.array([3, 8, 20, 41], np.int32))
    assert ours.exchanged.size < dense.exchanged.size
    for theirs, mine in (
        (dense.get_gradients(), ours.get_gradients()),
        (dense.get_parameters(), ours.get_parameters()),
    ):
        for name, expected in theirs.items():
            np.testing.assert_allclose(mine[name], expected, rtol=1e-6, atol=1e-9, err_msg=name)
    changed = np.flatnonzero((ours.get_parameters()["W_xi"] != initial_parameters(V, H, 0)["W_xi"]).any(axis=1))
    assert changed.tolist() == [3, 8, 20]


def test_gradient_of_another_workers_characters_is_zero():
    model = trained_once(np.array([3, 8, 20, 41], np.int32))
    assert (
        not model.gradients.w_x[3:].asnumpy().any()
    ), "rows without a character of this worker must not stay as before"


def test_only_the_given_rows_are_updated():
    matrix = mx.nd.array(np.arange(20.0).reshape(5, 4))
    gradient = mx.nd.array(np.arange(8.0).reshape(2, 4))
    optim.sgd_update_rows_(matrix, mx.nd.array([4, 1], dtype="int32"), gradient, 0.5, mx.nd.array([0.1]))
    expected = np.arange(20.0).reshape(5, 4)
    expected[[4, 1]] -= 0.05 * np.arange(8.0).reshape(2, 4)
    np.testing.assert_allclose(matrix.asnumpy(), expected, rtol=1e-6)
