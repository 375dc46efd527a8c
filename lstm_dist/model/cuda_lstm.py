"""CudaLSTM: the language model on a GPU, computed by kernels of this project, products of cuBLAS and copies alone.

MXNet's own kernels are machine code for some GPUs; ours are compiled at run time for any. A step needs 15 operations
with the persistent recurrence, and four more for each character of a window with the loop, instead of a thousand. Its
methods are documented in language_model.py.
"""

from typing import List, NamedTuple, Optional, Sequence, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.cuda import launch_sizes
from lstm_dist.cuda.module import Module
from lstm_dist.model.control_flags import FLAGS, NO_REQUEST, ControlFlags
from lstm_dist.model.cuda_recurrence import LayerInput, LayerValues, Recurrence
from lstm_dist.model.graph import sort_lookups
from lstm_dist.model.language_model import CharacterReader, LanguageModel, LSTMState
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.stacked_lstm import OUTPUT, recurrent


class WindowValues(NamedTuple):
    """Arrays for windows of one shape, written anew by each of them.

    Attributes:
        layers: lowest first.
        logits: (T * B, V), replaced by the derivatives of the loss.
        losses: (T * B,).
        dh: (T * B, H), the derivatives of a layer's outputs.
    """

    layers: List[LayerValues]
    logits: mx.nd.NDArray
    losses: mx.nd.NDArray
    dh: mx.nd.NDArray


class CudaLSTM(LanguageModel):
    """The model of one worker on a GPU."""

    def __init__(
        self, vocab_size: int, hidden_size: int, layers: int, module: Module, recurrence: Recurrence, gpu: str
    ) -> None:
        """Make a model without values.

        Args:
            vocab_size: V.
            hidden_size: H.
            layers: number of layers.
            module: the kernels for H, on the GPU.
            recurrence: with the same kernels.
            gpu: its name.
        """
        super().__init__(vocab_size, hidden_size, module.ctx, layers)
        self._launch, self._recurrence = module.launch, recurrence
        self._gpu = gpu
        self._kept: Tuple[Tuple[int, ...], Optional[WindowValues]] = ((), None)
        self._partial_sums = self._empty(launch_sizes.NORM_BLOCKS)
        self._characters = self._upload(np.arange(vocab_size))[0]

    @property
    def arithmetic(self) -> str:
        return f"{self._gpu} with the {self._recurrence.name} recurrence"

    def zero_state(self, streams: int) -> LSTMState:
        zeros = np.zeros((streams, self.layers * self.hidden_size), np.float32)
        return self.make_state(zeros, zeros)

    def make_state(self, h: np.ndarray, c: np.ndarray) -> LSTMState:
        return LSTMState(*(_copied(np.array(part, np.float32, order="C"), self.ctx) for part in (h, c)))

    def loss_and_gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        state: LSTMState,
        requests: ControlFlags = NO_REQUEST,
        characters: Optional[np.ndarray] = None,
    ) -> Tuple[mx.nd.NDArray, LSTMState]:
        gradients, looked_up = self.gradients, inputs.T.reshape(-1)
        gradients.select(characters)
        by_row, starts = sort_lookups(gradients.rows_of(looked_up), len(gradients.w_x))
        selected = np.arange(self.vocab_size) if characters is None else characters
        tokens, labels, order, begins, self._characters = self._upload(looked_up, targets.T, by_row, starts, selected)
        values = self._training_window(*inputs.shape)
        loss, after = self._run(values, tokens, labels, state, gradients.flags, requests)
        dz, columns = self._backward(values), 4 * self.hidden_size
        size = launch_sizes.rows_by_columns(len(gradients.w_x), columns)
        self._launch("lookup_gradient", size, dz, order, begins, gradients.w_x, columns)
        return loss, after

    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[mx.nd.NDArray, LSTMState]:
        tokens, labels = self._upload(inputs.T, targets.T)
        return self._run(self._window(*inputs.shape), tokens, labels, state, self._empty(FLAGS), NO_REQUEST)

    def clip_by_global_norm(self, max_norm: float) -> Tuple[mx.nd.NDArray, mx.nd.NDArray]:
        flat, sums, norm, factor = self.gradients.flat, self._partial_sums, self._empty(1), self._empty(1)
        self._launch("square_sums", launch_sizes.reduced(launch_sizes.NORM_BLOCKS), flat, sums, flat.size)
        self._launch("clip", launch_sizes.reduced(1), sums, norm, factor, max_norm, launch_sizes.NORM_BLOCKS)
        return norm, factor

    def sgd_update_(self, learning_rate: float, factor: mx.nd.NDArray) -> None:
        columns, others = 4 * self.hidden_size, self.gradients.others.size
        n = others + self._characters.size * columns
        arrays = self.weights, self.gradients.flat, self._characters, factor
        self._launch("sgd_update", launch_sizes.each(n), *arrays, learning_rate, self.vocab_size, columns, others, n)

    def step_numbers(self, loss: mx.nd.NDArray, grad_norm: mx.nd.NDArray) -> mx.nd.NDArray:
        numbers = self._empty(2 + FLAGS)
        self._launch(
            "gather_numbers", launch_sizes.each(2 + FLAGS), loss, grad_norm, self.gradients.flags, numbers, FLAGS
        )
        return numbers

    def reader(self) -> CharacterReader:
        return _CudaReader(self)

    def logits(self, token: int, state: LSTMState) -> Tuple[np.ndarray, LSTMState]:
        """Return the logits without bias after one character of one stream, (V,), and the state after it."""
        values = self._window(1, 1)
        after = self._forward(values, self._upload(np.array([token]))[0], state)
        mx.nd.dot(values.layers[-1].h_after, self.parameters.views["W_hy"], out=values.logits)
        row: np.ndarray = values.logits.asnumpy()[0]
        return row, after

    def _run(
        self,
        values: WindowValues,
        tokens: mx.nd.NDArray,
        targets: mx.nd.NDArray,
        state: LSTMState,
        flags: mx.nd.NDArray,
        requests: ControlFlags,
    ) -> Tuple[mx.nd.NDArray, LSTMState]:
        """Compute `values`, control flags, loss and final state of a window, of tokens and targets, (T * B,) each.

        The logits are replaced by the derivatives of the loss.
        """
        views, n = self.parameters.views, tokens.size
        after, loss = self._forward(values, tokens, state), self._empty(1)
        mx.nd.dot(values.layers[-1].h_after, views["W_hy"], out=values.logits)
        arrays = values.logits, views["b_y"], targets, values.losses
        self._launch("softmax_loss", launch_sizes.reduced(n), *arrays, self.vocab_size)
        bits = sum(is_requested << number for number, is_requested in enumerate(requests))
        self._launch("sum_loss", launch_sizes.reduced(1), values.losses, loss, flags, n, bits, FLAGS)
        return loss, after

    def _forward(self, values: WindowValues, tokens: mx.nd.NDArray, state: LSTMState) -> LSTMState:
        """Run all layers, lowest first; returns the state after the window."""
        views = self.parameters.views
        after = LSTMState(*(self._empty(*part.shape) for part in state))
        for number, suffix in enumerate(suffixes(self.layers)):
            x = views[f"W_x{suffix}"]
            if number:
                gates = self._empty(tokens.size, 4 * self.hidden_size)
                x = mx.nd.dot(values.layers[number - 1].h_after, x, out=gates)
            given = LayerInput(x, tokens, number == 0, views[f"W_h{suffix}"], views[f"b{suffix}"], number, self.layers)
            self._recurrence.forward(given, state, values.layers[number], after)
        return after

    def _backward(self, values: WindowValues) -> mx.nd.NDArray:
        """Compute all gradients but that of the lowest W_x; returns dz of the lowest layer, (T * B, 4H)."""
        views, dlogits = self.parameters.views, values.logits
        self._weight_gradients(self.gradients.joint[OUTPUT], [values.layers[-1].h_after], dlogits)
        mx.nd.dot(dlogits, views["W_hy"], transpose_b=True, out=values.dh)
        for number, suffix in reversed(list(enumerate(suffixes(self.layers)))):
            layer = values.layers[number]
            self._recurrence.backward(values.dh, views[f"W_h{suffix}"], layer)
            below = [values.layers[number - 1].h_after] if number else []
            self._weight_gradients(self.gradients.joint[recurrent(suffix)], [*below, layer.h_before], layer.dz)
            if number:
                mx.nd.dot(layer.dz, views[f"W_x{suffix}"], transpose_b=True, out=values.dh)
        return values.layers[0].dz

    def _weight_gradients(
        self, joint: mx.nd.NDArray, factors: Sequence[mx.nd.NDArray], derivatives: mx.nd.NDArray
    ) -> None:
        """Compute the gradients of matrices and of the bias that are joined in one array, from their inputs."""
        H, (rows, columns) = self.hidden_size, derivatives.shape
        for number, factor in enumerate(factors):
            mx.nd.dot(factor, derivatives, transpose_a=True, out=joint[number * H : (number + 1) * H])
        self._launch("column_sums", launch_sizes.columns(columns), derivatives, joint[-1:], rows, columns)

    def _training_window(self, B: int, T: int) -> WindowValues:
        """Return the arrays of the last window of training, if it was of the same shape, or new ones."""
        shape, values = self._kept
        if values is None or shape != (B, T):
            values = self._window(B, T)
            self._kept = (B, T), values
        return values

    def _window(self, B: int, T: int) -> WindowValues:
        """Return arrays for a window of (B, T)."""
        layers = [LayerValues.empty(T, B, self.hidden_size, self.ctx) for _ in range(self.layers)]
        shapes = (T * B, self.vocab_size), (T * B,), (T * B, self.hidden_size)
        return WindowValues(layers, *(self._empty(*shape) for shape in shapes))

    def _upload(self, *arrays: np.ndarray) -> List[mx.nd.NDArray]:
        """Copy integers to the GPU, all in one transfer; returns one vector for each array."""
        whole = _copied(np.concatenate([array.reshape(-1) for array in arrays]).astype(np.int32), self.ctx)
        ends = np.cumsum([array.size for array in arrays])
        return [whole[int(end) - array.size : int(end)] for array, end in zip(arrays, ends)]

    def _empty(self, *shape: int) -> mx.nd.NDArray:
        return mx.nd.empty(shape, ctx=self.ctx)


class _CudaReader(CharacterReader):
    """Reads characters with windows of one character."""

    def __init__(self, model: CudaLSTM) -> None:
        self._model, self._state = model, model.zero_state(1)
        self._b_y = model.parameters.views["b_y"].asnumpy()

    def read(self, token: int) -> np.ndarray:
        logits, self._state = self._model.logits(token, self._state)
        biased: np.ndarray = logits + self._b_y
        return biased


def _copied(array: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """Return a copy on a device; the transfer is asynchronous."""
    return mx.nd.from_numpy(array).as_in_context(ctx)
