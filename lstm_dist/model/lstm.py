"""The hand-written LSTM: forward and backward through time, as a visible pair.

    i_t = sigmoid(x_t W_xi + h_{t-1} W_hi + b_i)        input gate
    f_t = sigmoid(x_t W_xf + h_{t-1} W_hf + b_f)        forget gate
    o_t = sigmoid(x_t W_xo + h_{t-1} W_ho + b_o)        output gate
    g_t =    tanh(x_t W_xc + h_{t-1} W_hc + b_c)        candidate cell
    c_t = f_t * c_{t-1} + i_t * g_t
    h_t = o_t * tanh(c_t)

(Hochreiter and Schmidhuber 1997, with the forget gate of Gers et al. 2000; the document's formulation.)

Shapes: B streams, T steps, H = hidden_size, V = vocab_size. The four gates live side by side in one matrix of 4H
columns in the order of GATES, so that a step is one product: z_t = W_x[x_t] + h_{t-1} W_h + b. A layer above another
takes the h_t of that one for its x_t.

Every function takes F, which is `mxnet.sym` (the trained graph) or `mxnet.nd` (the tests, in float64): the same lines
are compiled into the static graph and checked by finite differences. Blocks are cut out by slice_axis throughout:
MXNet's SliceChannel takes several times as long.
"""

from types import ModuleType
from typing import Any, Iterable, List, NamedTuple, Sequence, Tuple

GATES = ("i", "f", "o", "c")  # the document's order, written once

Array = Any  # mx.nd.NDArray or mx.sym.Symbol, whichever F makes


class Step(NamedTuple):
    """What the backward pass needs from one step of the forward pass; all (B, H)."""

    i: Array
    f: Array
    o: Array
    g: Array  # the candidate after its tanh
    c_prev: Array
    tanh_c: Array


def step_forward(
    F: ModuleType, x_gates: Array, h: Array, c: Array, w_h_t: Array, b: Array, H: int
) -> Tuple[Array, Array, Step]:
    """One step of the formulas above.

    Args:
        x_gates: (B, 4H), x_t W_x; for characters, the rows of W_x that they select: a one-hot row times W_x.
        h, c: (B, H), the state before the step.
        w_h_t: (4H, H), W_h transposed, the layout in which FullyConnected takes its weight.
        b: (4H,).

    Returns:
        h and c after the step, (B, H) each, and what `step_backward` needs.
    """
    z = F.FullyConnected(h, w_h_t, b, num_hidden=4 * H) + x_gates
    # The candidate's sigmoid is never used: computing it costs less than cutting it off first.
    gates = F.Activation(z, act_type="sigmoid")
    i, f, o = (F.slice_axis(gates, axis=1, begin=k * H, end=(k + 1) * H) for k in range(3))
    g = F.Activation(F.slice_axis(z, axis=1, begin=3 * H, end=4 * H), act_type="tanh")
    c_next = f * c + i * g
    tanh_c = F.Activation(c_next, act_type="tanh")
    return o * tanh_c, c_next, Step(i, f, o, g, c, tanh_c)


def step_backward(F: ModuleType, dh: Array, dc: Array, step: Step) -> Tuple[Array, Array]:
    """The chain rule through one step.

    Args:
        dh: (B, H), dL/dh_t, from the layer above and from step t+1 together.
        dc: (B, H), dL/dc_t as far as it comes from step t+1.

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
    """For y = sigmoid(x), dL/dx = dy * y * (1 - y), in one pass over memory."""
    return F._internal._backward_sigmoid(dy, y)


def through_tanh(F: ModuleType, dy: Array, y: Array) -> Array:
    """For y = tanh(x), dL/dx = dy * (1 - y * y), in one pass over memory."""
    return F._internal._backward_tanh(dy, y)


def times_transposed(F: ModuleType, dz: Array, w_h: Array, B: int, H: int) -> Array:
    """The (B, H) product dz W_h^T of dz, (B, 4H), and W_h, (H, 4H).

    FullyConnected multiplies by its weight transposed. From 16 rows on oneDNN takes a way that is up to twice as slow
    as the one it takes when the two change places.
    """
    if B < 16:
        return F.FullyConnected(dz, w_h, num_hidden=H, no_bias=True)
    return F.transpose(F.FullyConnected(w_h, dz, num_hidden=B, no_bias=True))


def lstm_forward(
    F: ModuleType, x_gates: Iterable[Array], h: Array, c: Array, w_h: Array, b: Array, H: int
) -> Tuple[List[Array], Array, List[Step]]:
    """All T steps from a given state.

    Args:
        x_gates: of every step what `step_forward` takes.
        h, c: (B, H), the state that the window starts from.
        w_h: (H, 4H).
        b: (4H,).

    Returns:
        h_0 .. h_T, each (B, H), h_0 being the given one; the last c, (B, H); and the T steps for `lstm_backward`.
    """
    w_h_t = F.transpose(w_h)
    hs, steps = [h], []
    for gates in x_gates:
        h, c, step = step_forward(F, gates, h, c, w_h_t, b, H)
        hs.append(h)
        steps.append(step)
    return hs, c, steps


def lstm_backward(F: ModuleType, dh_out: Array, steps: Sequence[Step], w_h: Array, B: int, H: int) -> Array:
    """Back through all T steps; the state before the window is a constant (truncated back-propagation through time).

    Args:
        dh_out: (T * B, H), dL/dh_t from the layer above, time first.
        steps: what `lstm_forward` kept.
        w_h: (H, 4H).

    Returns:
        dz, (T * B, 4H). The parameters' gradients are sums over it, so they are taken in one product each:
        dW_h = [h_0 .. h_{T-1}]^T dz, db = sum of rows, and dW_x = [x_1 .. x_T]^T dz, which for characters adds row t
        of dz to the row of W_x that x_t selected.
    """
    T = len(steps)
    dh_next = dc = F.zeros_like(steps[-1].tanh_c)
    dzs = []
    for t in reversed(range(T)):
        dh = F.slice_axis(dh_out, axis=0, begin=t * B, end=(t + 1) * B) + dh_next
        dz, dc = step_backward(F, dh, dc, steps[t])
        dzs.append(dz)
        if t > 0:
            dh_next = times_transposed(F, dz, w_h, B, H)
    return F.concat(*reversed(dzs), dim=0)
