"""CharLSTM: the language model on a CPU, as a static graph of MXNet operators compiled once per window shape.

Its methods are documented in language_model.py.
"""

from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.model import optim
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.graph import character_graph, lookup_gradient, window_graph
from lstm_dist.model.language_model import CharacterReader, LanguageModel, LSTMState
from lstm_dist.model.products import describe_products, fastest_transposed_times

# Memory of the graph is planned once, so a step allocates nothing.
_STATIC = [("static_alloc", True), ("static_shape", True)]
_CHANGING = ("inputs", "targets", "token", "h", "c")  # arguments that are another array at each call


class Compiled(NamedTuple):
    """A compiled graph, and the order of its arguments."""

    graph: Any
    order: List[str]

    @classmethod
    def of(cls, outputs: List[Any]) -> "Compiled":
        """Compile a graph with these outputs.

        MXNet joins neighbouring operators to one task unless they read an array that may be another one at each call.
        """
        graph = mx.sym.Group(outputs)
        order = graph.list_arguments()
        changing = [k for k, name in enumerate(order) if name in _CHANGING]
        kept = [k for k, name in enumerate(order) if name not in _CHANGING]
        return cls(mx.nd.CachedOp(graph, [*_STATIC, ("data_indices", changing), ("param_indices", kept)]), order)

    def __call__(self, arrays: Mapping[str, mx.nd.NDArray], **options: Any) -> Any:
        """Run the graph on the arrays with the names of its arguments."""
        return self.graph(*(arrays[name] for name in self.order), **options)


class CharLSTM(LanguageModel):
    """The model of one worker as a static graph."""

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, layers: int = 1) -> None:
        super().__init__(vocab_size, hidden_size, ctx, layers)
        self._compiled: Dict[Tuple[int, int, Tuple[str, ...]], Compiled] = {}
        # `dz` is reused because newly allocated memory would cost a page fault every 4 KiB at every step.
        self._dz: Dict[Tuple[int, int], mx.nd.NDArray] = {}

    @property
    def arithmetic(self) -> str:
        return describe_products()

    def zero_state(self, streams: int) -> LSTMState:
        shape = (streams, self.layers * self.hidden_size)
        return LSTMState(mx.nd.zeros(shape, ctx=self.ctx), mx.nd.zeros(shape, ctx=self.ctx))

    def make_state(self, h: np.ndarray, c: np.ndarray) -> LSTMState:
        return LSTMState(mx.nd.array(h, ctx=self.ctx), mx.nd.array(c, ctx=self.ctx))

    def loss_and_gradients(
        self,
        inputs: np.ndarray,
        targets: np.ndarray,
        state: LSTMState,
        requests: ControlFlags = NO_REQUEST,
        characters: Optional[np.ndarray] = None,
    ) -> Tuple[mx.nd.NDArray, LSTMState]:
        B, T = inputs.shape
        if (B, T) not in self._dz:
            self._dz[B, T] = mx.nd.empty((T * B, 4 * self.hidden_size), ctx=self.ctx)
        dz, gradients = self._dz[B, T], self.gradients
        gradients.select(characters)
        loss, after = self._run(inputs, targets, state, {"flags": gradients.flags, "dz": dz, **gradients.joint})
        lookup_gradient(dz, gradients.rows_of(inputs.T.reshape(-1)), gradients.w_x)
        for number in [k for k, is_requested in enumerate(requests) if is_requested]:
            gradients.flags[number : number + 1] += 1
        return loss, after

    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[mx.nd.NDArray, LSTMState]:
        return self._run(inputs, targets, state, {})

    def clip_by_global_norm(self, max_norm: float) -> Tuple[mx.nd.NDArray, mx.nd.NDArray]:
        return optim.clip_by_global_norm(self.gradients.flat, max_norm)

    def sgd_update_(self, learning_rate: float, factor: mx.nd.NDArray) -> None:
        gradients, w_x = self.gradients, self.parameters.views["W_x"]
        optim.sgd_update_(self.parameters.others, gradients.others, learning_rate, factor)
        if gradients.characters is None:
            optim.sgd_update_(w_x, gradients.w_x, learning_rate, factor)
        else:
            rows = _on_device(gradients.characters, self.ctx)
            optim.sgd_update_rows_(w_x, rows, gradients.w_x[: rows.size], learning_rate, factor)

    def step_numbers(self, loss: mx.nd.NDArray, grad_norm: mx.nd.NDArray) -> mx.nd.NDArray:
        return mx.nd.concat(loss, grad_norm, self.gradients.flags, dim=0)

    def reader(self) -> CharacterReader:
        return _GraphReader(self)

    def _run(
        self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState, outputs: Mapping[str, mx.nd.NDArray]
    ) -> Tuple[mx.nd.NDArray, LSTMState]:
        """Compute a window's loss and final state, and fill the other requested `outputs`."""
        B, T = inputs.shape
        compiled = self._compile(B, T, tuple(outputs))
        loss = mx.nd.empty((1,), ctx=self.ctx)
        after = LSTMState(mx.nd.empty(state.h.shape, ctx=self.ctx), mx.nd.empty(state.c.shape, ctx=self.ctx))
        arrays = {
            "inputs": _on_device(inputs.T, self.ctx),
            "targets": _on_device(targets.T, self.ctx),
            **state._asdict(),
            **self.parameters.views,
        }
        compiled(arrays, out=[loss, *after, *outputs.values()])
        return loss, after

    def _compile(self, B: int, T: int, outputs: Tuple[str, ...]) -> Compiled:
        """Return the graph for windows of (B, T) that computes loss, h, c and `outputs`; compiled on first use."""
        if (B, T, outputs) not in self._compiled:
            arrays = {name: mx.sym.var(name) for name in ("inputs", "targets", "h", "c", *self.parameters.views)}
            sizes = B, T, self.hidden_size, self.vocab_size, self.layers
            window = window_graph(mx.sym, *sizes, fastest_transposed_times(), **arrays)
            self._compiled[B, T, outputs] = Compiled.of([window[name] for name in ("loss", "h", "c", *outputs)])
        return self._compiled[B, T, outputs]


class _GraphReader(CharacterReader):
    """Reads characters with one static graph per character."""

    def __init__(self, model: CharLSTM) -> None:
        self._h, self._c = model.zero_state(1)
        # FullyConnected takes transposed weights; transpose them once for the whole text.
        self._arrays = {
            name: value if name == "W_x" or value.ndim == 1 else mx.nd.transpose(value)
            for name, value in model.parameters.views.items()
        }
        symbols = {name: mx.sym.var(name) for name in ("token", "h", "c", *self._arrays)}
        self._compiled = Compiled.of(
            character_graph(mx.sym, model.hidden_size, model.vocab_size, model.layers, **symbols)
        )
        self._ctx = model.ctx

    def read(self, token: int) -> np.ndarray:
        changing = {"token": _on_device(np.array([token]), self._ctx), "h": self._h, "c": self._c}
        logits, self._h, self._c = self._compiled({**self._arrays, **changing})
        row: np.ndarray = logits.asnumpy()[0]
        return row


def _on_device(tokens: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """Return an int32 copy on the device; the transfer is asynchronous."""
    return mx.nd.from_numpy(np.array(tokens, np.int32, order="C")).as_in_context(ctx)
