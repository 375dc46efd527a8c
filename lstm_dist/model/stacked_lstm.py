"""Stacked LSTM layers: the lowest reads characters, every other one the h_t of the layer below.

The D2L chapter has one layer. For more, h and c of all layers are concatenated, (B, layers * H), lowest first.
"""

from types import ModuleType
from typing import Dict, Iterator, List, Mapping, NamedTuple, Optional, Sequence

from lstm_dist.model import lstm
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.products import Array, TransposedTimes

OUTPUT = "output"  # the name of the matrix that joins W_hy and b_y


class Layer(NamedTuple):
    """Values of one layer's forward pass that the backward pass and the next window need.

    Attributes:
        x: (T * B, H), the layer's input; None for characters.
        h_before, h_after: (T * B, H), h_0 .. h_{T-1} and h_1 .. h_T, time first.
        h, c: (B, H), the final state.
        steps: all T.
    """

    x: Optional[Array]
    h_before: Array
    h_after: Array
    h: Array
    c: Array
    steps: List[lstm.Step]


def recurrent(suffix: str) -> str:
    """Return the name of the matrix that joins W_h and b of the lowest layer, or W_x, W_h and b of an upper one.

    The lowest W_x is separate, because only the rows of characters in the window have a gradient.
    """
    return f"recurrent{suffix}"


def concat_layers(F: ModuleType, parts: Sequence[Array]) -> Array:
    """Return the (B, H) states of all layers as (B, layers * H); without a copy for one layer."""
    return parts[0] if len(parts) == 1 else F.concat(*parts, dim=1)


def split_layers(F: ModuleType, state: Array, H: int, layers: int) -> List[Array]:
    """Split a state that `concat_layers` joined."""
    if layers == 1:
        return [state]
    return [F.slice_axis(state, axis=1, begin=number * H, end=(number + 1) * H) for number in range(layers)]


def layers_forward(F: ModuleType, arrays: Mapping[str, Array], B: int, T: int, H: int, layers: int) -> List[Layer]:
    """Run all T steps of all layers, lowest first; `arrays` as in `graph.window_graph`."""
    computed: List[Layer] = []
    before = (split_layers(F, arrays[name], H, layers) for name in ("h", "c"))
    for suffix, h, c in zip(suffixes(layers), *before):
        x, w_x = (computed[-1].h_after if computed else None), arrays[f"W_x{suffix}"]
        x_gates = _character_gates(F, arrays["inputs"], w_x, B, T) if x is None else _state_gates(F, x, w_x, T, H)
        w_h, b = arrays[f"W_h{suffix}"], arrays[f"b{suffix}"]
        hs, c_after, steps = lstm.lstm_forward(F, x_gates, h, c, w_h, b, B, H)
        computed.append(Layer(x, F.concat(*hs[:-1], dim=0), F.concat(*hs[1:], dim=0), hs[-1], c_after, steps))
    return computed


def layers_backward(
    F: ModuleType,
    dh_out: Array,
    computed: Sequence[Layer],
    arrays: Mapping[str, Array],
    B: int,
    H: int,
    transposed_times: TransposedTimes,
) -> Dict[str, Array]:
    """Return the gradients under their names in `GradientBuffer.joint`, and `dz` of the lowest layer, (T * B, 4H).

    Args:
        dh_out: (T * B, H), dL/dh_t of the top layer from the output layer, time first.
        computed: from `layers_forward`.
        transposed_times: a form from products.py.
    """
    gradients = {}
    for suffix, layer in zip(reversed(suffixes(len(computed))), reversed(computed)):
        dz = lstm.lstm_backward(F, dh_out, layer.steps, arrays[f"W_h{suffix}"], B, H)
        factors = [layer.h_before] if layer.x is None else [layer.x, layer.h_before]
        rows = len(factors) * H + 1
        gradients[recurrent(suffix)] = transposed_times(F, append_ones(F, *factors), dz, rows, 4 * H)
        if layer.x is not None:
            dh_out = F.FullyConnected(dz, arrays[f"W_x{suffix}"], num_hidden=H, no_bias=True)
    return {"dz": dz, **gradients}


def append_ones(F: ModuleType, *factors: Array) -> Array:
    """Concatenate columns and append a column of ones, since a bias is the weight of a constant input of one."""
    return F.concat(*factors, F.ones_like(F.slice_axis(factors[0], axis=1, begin=0, end=1)), dim=1)


def _character_gates(F: ModuleType, inputs: Array, w_x: Array, B: int, T: int) -> Iterator[Array]:
    """Yield every step's x_t W_x from (T, B) tokens, each of which selects a row of W_x."""
    tokens = F.reshape(inputs, shape=(-1,))
    for t in range(T):
        yield F.take(w_x, F.slice_axis(tokens, axis=0, begin=t * B, end=(t + 1) * B))


def _state_gates(F: ModuleType, x: Array, w_x: Array, T: int, H: int) -> Iterator[Array]:
    """Yield every step's x_t W_x from the (T * B, H) states of the layer below, computed in one product."""
    gates = F.reshape(F.FullyConnected(x, F.transpose(w_x), num_hidden=4 * H, no_bias=True), shape=(T, -1, 4 * H))
    for t in range(T):
        yield F.reshape(F.slice_axis(gates, axis=0, begin=t, end=t + 1), shape=(-1, 4 * H))
