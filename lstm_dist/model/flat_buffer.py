"""Vectors that hold all parameters, or all gradients, with the matrices of the LSTM as views into them.

With one vector, a step needs one allreduce, one norm and few updates, and the summation order is fixed. W_x is apart
from the other parameters, because only the rows of characters that occur in a window have a gradient:

    parameters    [ W_x | all others ]
    gradients     [ control flags | all others | rows of W_x ]     only the beginning is used if the rows are few
"""

from itertools import product
from typing import Dict, List, Mapping, Optional, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.exchange_size import rounded_rows
from lstm_dist.model.lstm import GATES
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.stacked_lstm import OUTPUT, recurrent

Shapes = Dict[str, Tuple[int, ...]]


class ParameterBuffer:
    """All parameters.

    Attributes:
        flat: (number of parameters,).
        views: W_x (V, 4H), W_h (H, 4H), b (4H,), the same for the upper layers (W_x_2 (H, 4H), ...), W_hy (H, V) and
            b_y (V,); all share the memory of `flat`.
        others: all parameters but W_x, a part of `flat`.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, dtype: str = "float32", layers: int = 1):
        shapes = _fused_shapes(vocab_size, hidden_size, layers)
        self.flat = mx.nd.zeros(_size(shapes), dtype=dtype).as_in_context(ctx)  # no kernel on a GPU
        self.views = _cut(self.flat, shapes)
        self.others = self.flat[self.views["W_x"].size :]
        self._suffixes = suffixes(layers)

    def to_named(self) -> Dict[str, np.ndarray]:
        """Return copies under the names and shapes of `parameter_shapes`."""
        return _to_named({name: view.asnumpy() for name, view in self.views.items()}, self._suffixes)

    def from_named(self, named: Mapping[str, np.ndarray]) -> None:
        """Fill the vector from parameters under these names."""
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            blocks = [named[f"{kind}{gate}{suffix}"] for gate in GATES]
            self.views[kind.rstrip("_") + suffix][:] = np.concatenate(blocks, axis=-1)
        for name in ("W_hy", "b_y"):
            self.views[name][:] = named[name]


class GradientBuffer:
    """The gradients of one window, and the control flags.

    Attributes:
        flags: (FLAGS,).
        others: the gradients of `ParameterBuffer.others`, in the same order.
        joint: the matrices joined with their biases, which are the last rows, as views into `others`: "recurrent"
            (H + 1, 4H) of W_h and b, "recurrent_2" (2H + 1, 4H) of W_x_2, W_h_2 and b_2, ..., and "output" (H + 1, V)
            of W_hy and b_y.
        characters: the sorted characters to which the first rows of `w_x` belong; None if row k is that of character k.
        w_x: rows of the gradient of W_x, (rows, 4H); zero where there is no character.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, dtype: str = "float32", layers: int = 1):
        self._fused = _fused_shapes(vocab_size, hidden_size, layers)
        self._suffixes = suffixes(layers)
        self._vocab_size = vocab_size
        # Not set to zero, so that the system provides memory only for rows that are used.
        self._whole = mx.nd.empty(FLAGS + _size(self._fused), ctx=ctx, dtype=dtype)
        *_, columns = self._fused["W_x"]
        self._first = FLAGS + _size(self._fused) - vocab_size * columns  # of the rows of W_x
        self._rows = self._whole[self._first :].reshape((vocab_size, columns))
        self.flags, self.others = self._whole[:FLAGS], self._whole[FLAGS : self._first]
        self.joint = _cut(self.others, _joint_shapes(vocab_size, hidden_size, layers))
        self.select(None)

    def select(self, characters: Optional[np.ndarray]) -> None:
        """Set the characters whose rows of W_x have a gradient, sorted; None for all.

        Their number is rounded up to one of a few, because Horovod registers every length of an array.
        """
        self.characters = characters
        self.w_x = self._rows[: rounded_rows(self._vocab_size, None if characters is None else len(characters))]

    def rows_of(self, tokens: np.ndarray) -> np.ndarray:
        """Return the rows of `w_x` of tokens, (n,), which are among the selected characters."""
        return tokens if self.characters is None else np.searchsorted(self.characters, tokens)

    @property
    def exchanged(self) -> mx.nd.NDArray:
        """Return control flags and gradients as one vector."""
        return self._whole[: self._first + self.w_x.size]

    @property
    def flat(self) -> mx.nd.NDArray:
        """Return the gradients as one vector."""
        return self._whole[FLAGS : self._first + self.w_x.size]

    def to_named(self) -> Dict[str, np.ndarray]:
        """Return copies under the names and shapes of `parameter_shapes`, with zeros where there is no gradient."""
        w_x = self.w_x.asnumpy()
        if self.characters is not None:
            found, w_x = w_x[: len(self.characters)], np.zeros(self._fused["W_x"], w_x.dtype)
            w_x[self.characters] = found
        others = {name: shape for name, shape in self._fused.items() if name != "W_x"}
        fused = {name: view.asnumpy() for name, view in _cut(self.others, others).items()}
        return _to_named({"W_x": w_x, **fused}, self._suffixes)


def _fused_shapes(V: int, H: int, layers: int) -> Shapes:
    """Return the shapes of `ParameterBuffer.views`, in the order of their memory."""
    shapes: Shapes = {}
    for suffix in suffixes(layers):
        rows = H if suffix else V
        shapes.update({f"W_x{suffix}": (rows, 4 * H), f"W_h{suffix}": (H, 4 * H), f"b{suffix}": (4 * H,)})
    return {**shapes, "W_hy": (H, V), "b_y": (V,)}


def _joint_shapes(V: int, H: int, layers: int) -> Shapes:
    """Return the shapes of `GradientBuffer.joint`, in the same order."""
    joint = {recurrent(suffix): ((2 if suffix else 1) * H + 1, 4 * H) for suffix in suffixes(layers)}
    return {**joint, OUTPUT: (H + 1, V)}


def _size(shapes: Shapes) -> int:
    return sum(int(np.prod(shape)) for shape in shapes.values())


def _cut(vector: mx.nd.NDArray, shapes: Shapes) -> Dict[str, mx.nd.NDArray]:
    """Return consecutive views of these shapes that cover the vector."""
    views, start = {}, 0
    for name, shape in shapes.items():
        stop = start + int(np.prod(shape))
        views[name] = vector[start:stop].reshape(shape)
        start = stop
    return views


def _to_named(fused: Mapping[str, np.ndarray], suffixes_of_layers: List[str]) -> Dict[str, np.ndarray]:
    """Split fused matrices into those of `parameter_shapes`."""
    named = {name: fused[name] for name in ("W_hy", "b_y")}
    for kind, suffix in product(("W_x", "W_h", "b_"), suffixes_of_layers):
        for gate, block in zip(GATES, np.split(fused[kind.rstrip("_") + suffix], len(GATES), axis=-1)):
            named[f"{kind}{gate}{suffix}"] = np.ascontiguousarray(block)
    return named
