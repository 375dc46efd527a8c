"""The hand-written backward pass against finite differences, autograd and gluon.

All axes have different lengths, so that a wrong transposition fails.
"""

import itertools

import mxnet as mx
import numpy as np
import pytest
from mxnet import autograd, gluon, nd

from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.flat_buffer import GradientBuffer, ParameterBuffer
from lstm_dist.model.graph import lookup_gradient, window_graph
from lstm_dist.model.language_model import LSTMState
from lstm_dist.model.lstm import GATES
from lstm_dist.model.parameters import parameter_shapes
from lstm_dist.model.products import transposed_times_by_convolution, transposed_times_by_dot
from tests.support.reference import finite_differences, window_loss

B, T, H, V = 3, 4, 5, 7


def make_case(seed=0, steps=T, streams=B, layers=1):
    """Return random parameters, inputs, targets and states.

    The parameters are much larger than initial ones, so that the gates are not in their linear range.
    """
    rng = np.random.default_rng(seed)
    parameters = {name: rng.normal(0, 0.7, shape) for name, shape in parameter_shapes(V, H, layers).items()}
    text = rng.integers(0, V, (streams, steps + 1))
    state = rng.normal(0, 0.5, (2, streams, layers * H))
    return parameters, text[:, :-1], text[:, 1:], state[0], state[1]


def evaluate(parameters, inputs, targets, h, c, dtype="float64", transposed_times=transposed_times_by_dot):
    """Run the product's own graph operator by operator, in float64; return its outputs and the gradients."""
    layers = h.shape[1] // H
    flat = ParameterBuffer(V, H, mx.cpu(), dtype, layers=layers)
    flat.from_named(parameters)
    outputs = window_graph(
        nd, *inputs.shape, H, V, layers, transposed_times,
        inputs=nd.array(inputs.T, dtype="int32"), targets=nd.array(targets.T, dtype="int32"),
        h=nd.array(h, dtype=dtype), c=nd.array(c, dtype=dtype), **flat.views,
    )  # fmt: skip
    gradients = GradientBuffer(V, H, mx.cpu(), dtype, layers=layers)
    lookup_gradient(outputs["dz"], inputs.T.reshape(-1), gradients.w_x)
    for name, gradient in gradients.joint.items():
        gradient[:] = outputs[name]
    return outputs, gradients.to_named()


# With 16 to 63 streams, the operands of matrix products are swapped.
@pytest.mark.parametrize("transposed_times", [transposed_times_by_dot, transposed_times_by_convolution])
@pytest.mark.parametrize(("steps", "streams", "layers"), [(1, B, 1), (T, B, 1), (T, 17, 1), (1, B, 2), (T, B, 3)])
def test_gradients_match_finite_differences_of_a_float64_reference(steps, streams, layers, transposed_times):
    case = make_case(1, steps, streams, layers)
    loss, h, c = window_loss(*case)
    outputs, gradients = evaluate(*case, transposed_times=transposed_times)
    np.testing.assert_allclose(outputs["loss"].asscalar(), loss, rtol=1e-12)
    np.testing.assert_allclose(outputs["h"].asnumpy(), h, rtol=1e-12)
    np.testing.assert_allclose(outputs["c"].asnumpy(), c, rtol=1e-12)
    for name, expected in finite_differences(*case).items():
        np.testing.assert_allclose(gradients[name], expected, rtol=1e-6, atol=1e-8, err_msg=name)


def textbook_loss(parameters, inputs, targets, h, c):
    """Return the loss in the D2L chapter's formulation: one-hot products, a Python list of steps, gluon's loss."""
    W_xi, W_hi, b_i, W_xf, W_hf, b_f, W_xo, W_ho, b_o, W_xc, W_hc, b_c, W_hy, b_y = parameters
    outputs = []
    for x in nd.array(inputs.T):
        X = nd.one_hot(x, V)
        i = nd.sigmoid(nd.dot(X, W_xi) + nd.dot(h, W_hi) + b_i)
        f = nd.sigmoid(nd.dot(X, W_xf) + nd.dot(h, W_hf) + b_f)
        o = nd.sigmoid(nd.dot(X, W_xo) + nd.dot(h, W_ho) + b_o)
        c = f * c + i * nd.tanh(nd.dot(X, W_xc) + nd.dot(h, W_hc) + b_c)
        h = o * nd.tanh(c)
        outputs.append(nd.dot(h, W_hy) + b_y)
    labels = nd.array(targets.T.reshape(-1))
    return gluon.loss.SoftmaxCrossEntropyLoss()(nd.concat(*outputs, dim=0), labels).sum()


def test_gradients_match_autograd_of_the_chapters_forward_pass():
    named, inputs, targets, h, c = make_case(2)
    model = CharLSTM(V, H, mx.cpu())
    model.load({k: v.astype(np.float32) for k, v in named.items()}, "test")
    loss, _ = model.loss_and_gradients(inputs, targets, LSTMState(nd.array(h), nd.array(c)))

    arrays = [nd.array(named[name]) for name in parameter_shapes(V, H)]
    for array in arrays:
        array.attach_grad()
    with autograd.record():
        expected_loss = textbook_loss(arrays, inputs, targets, nd.array(h), nd.array(c))
    expected_loss.backward()
    np.testing.assert_allclose(loss.asscalar(), expected_loss.asscalar(), rtol=1e-5)
    gradients = model.gradients.to_named()
    for name, array in zip(parameter_shapes(V, H), arrays):
        np.testing.assert_allclose(gradients[name], array.grad.asnumpy(), rtol=1e-4, atol=1e-5, err_msg=name)


def gluon_twin(named, layers):
    """Return gluon.rnn.LSTM and a Dense layer with our weights.

    gluon's gates are i, f, g, o, and it has two bias vectors, of which the second is set to zero.
    """
    layer, head = gluon.rnn.LSTM(H, layers, input_size=V), gluon.nn.Dense(V, in_units=H, flatten=False)
    layer.initialize()
    head.initialize()
    order = [GATES.index(g) for g in ("i", "f", "c", "o")]

    for kind, suffix, parameter in parameters_of(layer, layers):
        stacked = np.concatenate([named[f"{kind}{GATES[k]}{suffix}"].T for k in order], axis=0)
        parameter.set_data(nd.array(stacked))
    for number in range(layers):
        getattr(layer, f"l{number}_h2h_bias").set_data(nd.zeros(4 * H))
    head.weight.set_data(nd.array(named["W_hy"].T))
    head.bias.set_data(nd.array(named["b_y"]))
    return layer, head


def parameters_of(layer, layers):
    """Yield kind and suffix of our parameter names, with gluon's parameter."""
    kinds = {"W_x": "i2h_weight", "W_h": "h2h_weight", "b_": "i2h_bias"}
    for number, (kind, name) in itertools.product(range(layers), kinds.items()):
        yield kind, f"_{number + 1}" if number else "", getattr(layer, f"l{number}_{name}")


def from_gluon(layer, head, layers):
    """Return gluon's gradients under the D2L chapter's names."""
    gradients = {"W_hy": head.weight.grad().asnumpy().T, "b_y": head.bias.grad().asnumpy()}
    for kind, suffix, parameter in parameters_of(layer, layers):
        for gate, part in zip(("i", "f", "c", "o"), np.split(parameter.grad().asnumpy(), 4)):
            gradients[f"{kind}{gate}{suffix}"] = part.T
    return gradients


@pytest.mark.parametrize("layers", [1, 2])
def test_three_windows_with_carried_state_match_gluon(layers):
    named = make_case(3, layers=layers)[0]
    model = CharLSTM(V, H, mx.cpu(), layers)
    model.load({k: v.astype(np.float32) for k, v in named.items()}, "test")
    layer, head = gluon_twin(named, layers)
    text = np.random.default_rng(4).integers(0, V, (B, 3 * T + 1))
    state, twin_state = model.zero_state(B), layer.begin_state(B)
    for start in range(0, 3 * T, T):
        inputs, targets = text[:, start : start + T], text[:, start + 1 : start + T + 1]
        loss, state = model.loss_and_gradients(inputs, targets, state)
        with autograd.record():
            out, twin_state = layer(nd.one_hot(nd.array(inputs.T), V), [s.detach() for s in twin_state])
            twin_loss = gluon.loss.SoftmaxCrossEntropyLoss()(
                head(out).reshape((-1, V)), nd.array(targets.T.reshape(-1))
            )
            twin_loss = twin_loss.sum()
        twin_loss.backward()
        np.testing.assert_allclose(loss.asscalar(), twin_loss.asscalar(), rtol=1e-5)
        for ours, twins in zip(state, twin_state):  # gluon stacks the layers, ours are concatenated
            np.testing.assert_allclose(ours.asnumpy(), np.hstack(twins.asnumpy()), rtol=1e-4, atol=1e-6)
        gradients = model.gradients.to_named()
        for name, expected in from_gluon(layer, head, layers).items():
            np.testing.assert_allclose(gradients[name], expected, rtol=1e-3, atol=1e-4, err_msg=name)


def test_gradients_of_a_repeated_character_are_summed():
    named, _, targets, h, c = make_case(5)
    inputs = np.full((B, T), 2)
    _, gradients = evaluate(named, inputs, targets, h, c)
    expected = finite_differences(named, inputs, targets, h, c)
    for gate in GATES:
        np.testing.assert_allclose(gradients[f"W_x{gate}"], expected[f"W_x{gate}"], rtol=1e-6, atol=1e-8)
        assert np.count_nonzero(gradients[f"W_x{gate}"].any(axis=1)) == 1
