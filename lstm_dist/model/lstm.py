"""The hand-written LSTM: forward and backward pass through time.

    i_t = sigmoid(x_t W_xi + h_{t-1} W_hi + b_i)        input gate
    f_t = sigmoid(x_t W_xf + h_{t-1} W_hf + b_f)        forget gate
    o_t = sigmoid(x_t W_xo + h_{t-1} W_ho + b_o)        output gate
    g_t =    tanh(x_t W_xc + h_{t-1} W_hc + b_c)        candidate cell
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; the formulation of the D2L chapter.)

Shapes: B streams, T steps, H = hidden_size, V = vocab_size. The four gates are concatenated in one matrix of 4H
columns in the order of GATES, so that a step is one product: z_t = W_x[x_t] + h_{t-1} W_h + b. The x_t of an upper
layer is the h_t of the layer below.

Every function takes F, which is `mxnet.sym` (for training) or `mxnet.nd` (for the tests, in float64), so that the code
compiled into the static graph is also the code checked by finite differences. Blocks are cut with slice_axis because
MXNet's SliceChannel takes several times as long.
"""

from types import ModuleType
from typing import Iterable, List, NamedTuple, Sequence, Tuple

from lstm_dist.model.products import Array, plus_times, times

GATES = ("i", "f", "o", "c")  # the order of the D2L chapter


class Step(NamedTuple):
    """Values of one forward step that the backward pass needs; all (B, H)."""

    i: Array
    f: Array
    o: Array
    g: Array  # the candidate after its tanh
    c_prev: Array
    tanh_c: Array


def step_forward(
    F: ModuleType, x_gates: Array, h: Array, c: Array, w_h_t: Array, b: Array, B: int, H: int
) -> Tuple[Array, Array, Step]:
    """Compute one step of the formulas above.

    Args:
        x_gates: (B, 4H), x_t W_x; for characters, the selected rows of W_x (a one-hot row times W_x).
        h, c: (B, H), the state before the step.
        w_h_t: (4H, H), W_h transposed, the layout that FullyConnected expects.
        b: (4H,).

    Returns:
        h and c after the step, (B, H) each, and what `step_backward` needs.
    """
    z = plus_times(F, x_gates, b, h, w_h_t, B, 4 * H)
    # The candidate's sigmoid is unused, but computing it costs less than slicing it off first.
    gates = F.Activation(z, act_type="sigmoid")
    i, f, o = (F.slice_axis(gates, axis=1, begin=k * H, end=(k + 1) * H) for k in range(3))
    g = F.Activation(F.slice_axis(z, axis=1, begin=3 * H, end=4 * H), act_type="tanh")
    c_next = f * c + i * g
    tanh_c = F.Activation(c_next, act_type="tanh")
    return o * tanh_c, c_next, Step(i, f, o, g, c, tanh_c)


def step_backward(F: ModuleType, dh: Array, dc: Array, step: Step) -> Tuple[Array, Array]:
    """Apply the chain rule through one step.

    Args:
        dh: (B, H), dL/dh_t, the sum from the layer above and from step t+1.
        dc: (B, H), the part of dL/dc_t from step t+1.

    Returns:
        dz, (B, 4H), dL/dz_t before the gates' activations, and dL/dc_{t-1}, (B, H).
    """
    dc = dc + through_tanh(F, dh * step.o, step.tanh_c)
    dz = [
        through_sigmoid(F, dc * step.g, step.i),
        through_sigmoid(F, dc * step.c_prev, step.f),
        through_sigmoid(F, dh * step.tanh_c, step.o),
        through_tanh(F, dc * step.i, step.g),
    ]
    return F.concat(*dz, dim=1), dc * step.f


def through_sigmoid(F: ModuleType, dy: Array, y: Array) -> Array:
    """Return dL/dx = dy * y * (1 - y) for y = sigmoid(x), in one pass over memory."""
    return F._internal._backward_sigmoid(dy, y)


def through_tanh(F: ModuleType, dy: Array, y: Array) -> Array:
    """Return dL/dx = dy * (1 - y * y) for y = tanh(x), in one pass over memory."""
    return F._internal._backward_tanh(dy, y)


def lstm_forward(
    F: ModuleType, x_gates: Iterable[Array], h: Array, c: Array, w_h: Array, b: Array, B: int, H: int
) -> Tuple[List[Array], Array, List[Step]]:
    """Run all T steps from a given state.

    Args:
        x_gates: for every step, the `x_gates` of `step_forward`.
        h, c: (B, H), the initial state of the window.
        w_h: (H, 4H).
        b: (4H,).

    Returns:
        h_0 .. h_T, each (B, H), where h_0 is the given h; the last c, (B, H); and the T steps for `lstm_backward`.
    """
    w_h_t = F.transpose(w_h)
    hs, steps = [h], []
    for gates in x_gates:
        h, c, step = step_forward(F, gates, h, c, w_h_t, b, B, H)
        hs.append(h)
        steps.append(step)
    return hs, c, steps


def lstm_backward(F: ModuleType, dh_out: Array, steps: Sequence[Step], w_h: Array, B: int, H: int) -> Array:
    """Back-propagate through all T steps; the initial state is a constant (truncated back-propagation through time).

    Args:
        dh_out: (T * B, H), dL/dh_t from the layer above, time first.
        steps: from `lstm_forward`.
        w_h: (H, 4H).

    Returns:
        dz, (T * B, 4H). Each parameter's gradient is one product with it: dW_h = [h_0 .. h_{T-1}]^T dz, db = sum of
        rows, and dW_x = [x_1 .. x_T]^T dz, which for characters adds row t of dz to the row of W_x that x_t selected.
    """
    T = len(steps)
    dh_next = dc = F.zeros_like(steps[-1].tanh_c)
    dzs = []
    for t in reversed(range(T)):
        dh = F.slice_axis(dh_out, axis=0, begin=t * B, end=(t + 1) * B) + dh_next
        dz, dc = step_backward(F, dh, dc, steps[t])
        dzs.append(dz)
        if t > 0:
            dh_next = times(F, dz, w_h, B, H)
    return F.concat(*reversed(dzs), dim=0)
