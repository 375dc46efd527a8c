"""The recurrence of one LSTM layer on a GPU, forward and backward through all steps of a window, in two ways.

Both compute the formulas of kernels/cell.cu and give the same numbers up to the order of summation:

    loop          for each step, a product with W_h by cuBLAS, and one kernel for all cells; for any size
    persistent    one kernel for all steps, which keeps W_h in registers; for sizes that fit the GPU
"""

from abc import ABC, abstractmethod
from typing import NamedTuple, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.cuda import launch_sizes
from lstm_dist.cuda.module import Module
from lstm_dist.model.language_model import LSTMState


def files_of(is_persistent: bool) -> Tuple[str, ...]:
    """Return the files with the kernels of a model; each uses names of those before it."""
    return "cell", ("persistent" if is_persistent else "loop"), "output", "update"


class LayerInput(NamedTuple):
    """What a layer reads, and its weights.

    Attributes:
        x: x_t W_x: the matrix W_x itself, (V, 4H), for the lowest layer; (T * B, 4H) for an upper one.
        tokens: (T * B,), the rows of W_x that the steps of the lowest layer select.
        is_lookup: whether x is W_x.
        w_h: (H, 4H).
        b: (4H,).
        layer: number of the layer, from 0.
        layers: number of layers; the state has H columns for each.
    """

    x: mx.nd.NDArray
    tokens: mx.nd.NDArray
    is_lookup: bool
    w_h: mx.nd.NDArray
    b: mx.nd.NDArray
    layer: int
    layers: int


class LayerValues(NamedTuple):
    """Values of a layer in one window that the backward pass needs.

    Attributes:
        h, c: (T + 1, B, H), from the state before the window to that after it.
        gates: (T, B, 4H), the activated gates; the backward pass replaces them by dz.
    """

    h: mx.nd.NDArray
    c: mx.nd.NDArray
    gates: mx.nd.NDArray

    @classmethod
    def empty(cls, T: int, B: int, H: int, ctx: mx.Context) -> "LayerValues":
        """Return arrays for windows of T characters of B streams."""
        return cls(*(mx.nd.empty(shape, ctx=ctx) for shape in ((T + 1, B, H), (T + 1, B, H), (T, B, 4 * H))))

    @property
    def h_before(self) -> mx.nd.NDArray:
        """Return h before each step, (T * B, H), time first."""
        return _joined(self.h[:-1])

    @property
    def h_after(self) -> mx.nd.NDArray:
        """Return h after each step, (T * B, H), time first."""
        return _joined(self.h[1:])

    @property
    def dz(self) -> mx.nd.NDArray:
        """Return the gates' derivatives after the backward pass, (T * B, 4H), time first."""
        return _joined(self.gates)


class Recurrence(ABC):
    """Runs all steps of a layer.

    Attributes:
        name: as in `--recurrence`.
    """

    name: str

    def __init__(self, module: Module, hidden_size: int) -> None:
        self._module = module
        self._hidden_size = hidden_size

    @abstractmethod
    def forward(self, given: LayerInput, before: LSTMState, values: LayerValues, after: LSTMState) -> None:
        """Compute `values`, and this layer's columns of the state after the window, from those before it."""

    @abstractmethod
    def backward(self, dh_out: mx.nd.NDArray, w_h: mx.nd.NDArray, values: LayerValues) -> None:
        """Replace the gates in `values` by dz.

        Args:
            dh_out: (T * B, H), dL/dh_t from the layer above, time first.
            w_h: (H, 4H).
            values: of the forward pass.
        """

    def _empty(self, *shape: int) -> mx.nd.NDArray:
        return mx.nd.empty(shape, ctx=self._module.ctx)


class LoopRecurrence(Recurrence):
    """One product and one kernel a step."""

    name = "loop"

    def forward(self, given: LayerInput, before: LSTMState, values: LayerValues, after: LSTMState) -> None:
        """See `Recurrence`."""
        T, B, _ = values.gates.shape
        cells, launch = launch_sizes.each(B * self._hidden_size), self._module.launch
        launch("load_state", cells, *before, values.h, values.c, given.layer, given.layers, B)
        z = self._empty(B, 4 * self._hidden_size)
        for t in range(T):
            mx.nd.dot(values.h[t], given.w_h, out=z)
            arrays = given.x, given.tokens, given.b, z, *values
            launch("cell_forward", cells, *arrays, int(given.is_lookup), t, B)
        launch("store_state", cells, values.h, values.c, *after, given.layer, given.layers, B, T)

    def backward(self, dh_out: mx.nd.NDArray, w_h: mx.nd.NDArray, values: LayerValues) -> None:
        """See `Recurrence`."""
        T, B, _ = values.gates.shape
        cells = launch_sizes.each(B * self._hidden_size)
        dh_next, dc = self._empty(B, self._hidden_size), self._empty(B, self._hidden_size)
        for t in reversed(range(T)):
            self._module.launch("cell_backward", cells, dh_out, dh_next, values.c, values.gates, dc, t, B, T)
            if t > 0:
                mx.nd.dot(values.gates[t], w_h, transpose_b=True, out=dh_next)


class PersistentRecurrence(Recurrence):
    """One kernel for all steps; `launch_sizes.persistent` tells for which sizes and GPUs."""

    name = "persistent"

    def __init__(self, module: Module, hidden_size: int, processors: int) -> None:
        """Make the recurrence.

        Args:
            module: with the kernels for this hidden size.
            hidden_size: H.
            processors: number of multiprocessors of the GPU.
        """
        super().__init__(module, hidden_size)
        self._processors = processors
        # Both kernels write to the counters, so MXNet never runs two of them at once.
        counters = np.zeros(launch_sizes.COUNTER_PITCH * processors, np.int32)
        self._arrivals = mx.nd.from_numpy(counters).as_in_context(module.ctx)

    def forward(self, given: LayerInput, before: LSTMState, values: LayerValues, after: LSTMState) -> None:
        """See `Recurrence`."""
        T, B, _ = values.gates.shape
        arrays = given.x, given.tokens, given.w_h, given.b, *before, *values, *after, self._arrivals
        numbers = int(given.is_lookup), given.layer, given.layers, B, T
        self._module.launch("persistent_forward", self._size(B), *arrays, *numbers)

    def backward(self, dh_out: mx.nd.NDArray, w_h: mx.nd.NDArray, values: LayerValues) -> None:
        """See `Recurrence`."""
        T, B, _ = values.gates.shape
        arrays = dh_out, w_h, values.c, values.gates, self._empty(B, self._hidden_size), self._arrivals
        self._module.launch("persistent_backward", self._size(B), *arrays, B, T)

    def _size(self, streams: int) -> launch_sizes.LaunchSize:
        size = launch_sizes.persistent(self._hidden_size, streams, self._processors)
        assert size is not None  # noqa: S101 - checked before this object is made
        return size


def _joined(steps: mx.nd.NDArray) -> mx.nd.NDArray:
    """Return (T, B, n) as (T * B, n), without a copy."""
    return steps.reshape((-3, 0))
