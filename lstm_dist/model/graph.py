"""Graphs of MXNet operators: loss and gradients of a window, and the logits after one character."""

from typing import Any, Dict, List, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.model import lstm
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.products import TransposedTimes
from lstm_dist.model.stacked_lstm import (
    OUTPUT,
    append_ones,
    concat_layers,
    layers_backward,
    layers_forward,
    split_layers,
)

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


def window_graph(
    F: Any, B: int, T: int, H: int, V: int, layers: int, transposed_times: TransposedTimes, **arrays: Any
) -> Dict[str, Any]:
    """Build loss and gradients of one window (forward, softmax cross-entropy, backward) as expressions of F.

    Args:
        F: `mxnet.sym` or `mxnet.nd`.
        transposed_times: a form from products.py.
        **arrays: `inputs` and `targets`, (T, B) tokens each; `h` and `c`, (B, layers * H) each; and the fused
            parameters under the names of `ParameterBuffer.views`.

    Returns:
        `loss` (1,), summed over the window in nats; `flags` (FLAGS,), zeros, or NaN if the loss is not finite; the
        final state, `h` and `c`; `dz`, (T * B, 4H), from which `lookup_gradient` computes the gradient of W_x; and the
        other gradients of `loss` under the names of `GradientBuffer.joint`.
    """
    computed, w_hy = layers_forward(F, arrays, B, T, H, layers), arrays["W_hy"]
    h_out = computed[-1].h_after
    logits = F.FullyConnected(h_out, F.transpose(w_hy), arrays["b_y"], num_hidden=V)
    probabilities = F.softmax(logits)
    targets = F.reshape(arrays["targets"], shape=(-1,))
    # The smallest normal float32 keeps log finite when a probability underflows; it limits the loss of a character
    # to 87 nats.
    loss = F.sum(-F.log(F.pick(probabilities, targets) + SMALLEST_NORMAL))

    dlogits = minus_one_hot(F, probabilities, targets, B * T, V)
    dh_out = F.FullyConnected(dlogits, w_hy, num_hidden=H, no_bias=True)
    return {
        "loss": loss,
        "flags": F.broadcast_to(F.reshape(loss * 0, shape=(1,)), shape=(FLAGS,)),
        "h": concat_layers(F, [layer.h for layer in computed]),
        "c": concat_layers(F, [layer.c for layer in computed]),
        **layers_backward(F, dh_out, computed, arrays, B, H, transposed_times),
        OUTPUT: transposed_times(F, append_ones(F, h_out), dlogits, H + 1, V),
    }


def minus_one_hot(F: Any, probabilities: Any, targets: Any, rows: int, V: int) -> Any:
    """Return the gradient of softmax cross-entropy: the probabilities minus one at every target; (rows, V).

    Assigns in place by index, which avoids materializing a one-hot matrix. BlockGrad is needed because a static graph
    requests a derivative of every operator, even if it is unused.
    """
    where = F.stack(F.arange(0, rows, dtype="int32"), targets, axis=0)
    values = F.pick(probabilities, targets) - 1
    dlogits = F.BlockGrad(probabilities)
    return F.BlockGrad(F._internal._scatter_set_nd(dlogits, values, where, shape=(rows, V), out=dlogits))


def character_graph(F: Any, H: int, V: int, layers: int, **arrays: Any) -> List[Any]:
    """Build one step of generation as expressions of F.

    Args:
        F: `mxnet.sym` or `mxnet.nd`.
        **arrays: `token`, (1,); `h` and `c`, (1, layers * H) each; and the parameters under the names of
            `ParameterBuffer.views`, all matrices but W_x transposed, the layout that FullyConnected expects.

    Returns:
        The logits after the token, (1, V), and the new `h` and `c`.
    """
    hs: List[Any] = []
    cs: List[Any] = []
    before = (split_layers(F, arrays[name], H, layers) for name in ("h", "c"))
    for suffix, h, c in zip(suffixes(layers), *before):
        w_x, w_h_t, b = (arrays[f"{name}{suffix}"] for name in ("W_x", "W_h", "b"))
        x = F.FullyConnected(hs[-1], w_x, num_hidden=4 * H, no_bias=True) if hs else F.take(w_x, arrays["token"])
        h_after, c_after, _ = lstm.step_forward(F, x, h, c, w_h_t, b, 1, H)
        hs, cs = [*hs, h_after], [*cs, c_after]
    logits = F.FullyConnected(hs[-1], arrays["W_hy"], arrays["b_y"], num_hidden=V)
    return [logits, concat_layers(F, hs), concat_layers(F, cs)]


def lookup_gradient(dz: mx.nd.NDArray, rows: np.ndarray, out: mx.nd.NDArray) -> None:
    """Compute the gradient of a row lookup: add row k of `dz` to row `rows[k]` of `out`, starting from 0.

    Computed as a product with the sparse one-hot matrix, in which one thread sums each row in a fixed order. MXNet's
    scatter-add has no fixed order, so its results would not be bitwise reproducible.

    Args:
        dz: (n, 4H), the gradient of the looked-up rows.
        rows: (n,), the row of each lookup.
        out: (rows, 4H), overwritten; zero where nothing was looked up.
    """
    order, starts = sort_lookups(rows, len(out))
    parts = [mx.nd.from_numpy(part) for part in (np.ones(len(rows), dz.dtype), order, starts)]
    one_hot = mx.nd.sparse.csr_matrix(tuple(parts), shape=(len(out), len(rows)), ctx=dz.context)
    mx.nd.sparse.dot(one_hot, dz, out=out)


def sort_lookups(rows: np.ndarray, n: int) -> Tuple[np.ndarray, np.ndarray]:
    """Return the lookups, (len(rows),), sorted by their rows, and where those of each of n rows begin, (n + 1,)."""
    starts = np.zeros(n + 1, np.int64)
    np.cumsum(np.bincount(rows, minlength=n), out=starts[1:])
    return np.argsort(rows, kind="stable"), starts
