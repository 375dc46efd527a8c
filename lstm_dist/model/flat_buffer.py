"""One vector for all parameters or all gradients, with the matrices of the LSTM as views into it."""

from itertools import product
from typing import Dict, Mapping, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.model.lstm import GATES
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.stacked_lstm import OUTPUT, recurrent


class FlatBuffer:
    """One vector that holds every parameter (or every gradient), with the fused matrices as views into it.

    With one vector, a step needs one allreduce, one norm and one update, and the summation order is fixed.

    Attributes:
        flat: (number of parameters,).
        extra: (extra,), additional numbers after the parameters.
        whole: `flat` followed by `extra`.
        views: W_x (V, 4H), W_h (H, 4H), b (4H,), the same for the upper layers (W_x_2 (H, 4H), ...), W_hy (H, V) and
            b_y (V,); all share the memory of `flat`.
        joint: W_x, and the other matrices joined with their biases, which are the last rows: "recurrent" (H + 1, 4H) of
            W_h and b, "recurrent_2" (2H + 1, 4H) of W_x_2, W_h_2 and b_2, ..., and "output" (H + 1, V) of W_hy and b_y.
    """

    def __init__(
        self,
        vocab_size: int,
        hidden_size: int,
        ctx: mx.Context,
        dtype: str = "float32",
        extra: int = 0,
        layers: int = 1,
    ) -> None:
        V, H = vocab_size, hidden_size
        matrices: Dict[str, Tuple[int, ...]] = {}
        for suffix in suffixes(layers):
            rows = H if suffix else V
            matrices.update({f"W_x{suffix}": (rows, 4 * H), f"W_h{suffix}": (H, 4 * H), f"b{suffix}": (4 * H,)})
        matrices.update(W_hy=(H, V), b_y=(V,))
        joint = {recurrent(suffix): ((2 if suffix else 1) * H + 1, 4 * H) for suffix in suffixes(layers)}
        joint = {"W_x": (V, 4 * H), **joint, OUTPUT: (H + 1, V)}
        self._suffixes = suffixes(layers)
        size = sum(int(np.prod(shape)) for shape in matrices.values())
        self.whole = mx.nd.zeros(size + extra, ctx=ctx, dtype=dtype)
        self.flat, self.extra = self.whole[:size], self.whole[size:]
        self.views = self._cut(matrices)
        self.joint = self._cut(joint)

    def _cut(self, shapes: Mapping[str, Tuple[int, ...]]) -> Dict[str, mx.nd.NDArray]:
        """Return consecutive views of these shapes that cover `flat`."""
        views, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            views[name] = self.flat[start:stop].reshape(shape)
            start = stop
        return views

    def to_named(self) -> Dict[str, np.ndarray]:
        """Return copies under the names and shapes of `parameter_shapes`."""
        fused = {name: view.asnumpy() for name, view in self.views.items()}
        named = {name: fused[name] for name in ("W_hy", "b_y")}
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            for gate, block in zip(GATES, np.split(fused[kind.rstrip("_") + suffix], len(GATES), axis=-1)):
                named[f"{kind}{gate}{suffix}"] = np.ascontiguousarray(block)
        return named

    def from_named(self, named: Mapping[str, np.ndarray]) -> None:
        """Fill the vector from parameters under these names."""
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            blocks = [named[f"{kind}{gate}{suffix}"] for gate in GATES]
            self.views[kind.rstrip("_") + suffix][:] = np.concatenate(blocks, axis=-1)
        for name in ("W_hy", "b_y"):
            self.views[name][:] = named[name]
