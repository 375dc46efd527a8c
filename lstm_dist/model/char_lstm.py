"""CharLSTM: the parameters on a device, and loss and gradients of one window."""

from itertools import product
from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.lstm import GATES
from lstm_dist.model.parameters import VOTES, document_shapes, suffixes
from lstm_dist.model.stacked_lstm import joint_name, layers_backward, layers_forward, side_by_side, with_ones

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class LSTMState(NamedTuple):
    """What is carried from one window to the next; both (B, layers * H), the lowest layer first."""

    h: mx.nd.NDArray
    c: mx.nd.NDArray


class FlatArray:
    """One vector that holds every parameter (or every gradient), and the fused matrices as views into it.

    One vector is one allreduce, one norm and one update a step, summed in an order that never changes.

    Attributes:
        flat: (number of parameters,).
        extra: (extra,), numbers that ride behind them.
        whole: both, one behind the other.
        views: W_x (V, 4H), W_h (H, 4H), b (4H,), those of the layers above, W_x_2 (H, 4H) and so on, W_hy (H, V) and
            b_y (V,), all sharing the memory of `flat`.
        joint: W_x again, and the other matrices with their biases as last rows: "W_h, b" (H + 1, 4H), "W_x_2, W_h_2,
            b_2" (2H + 1, 4H) and so on, and "W_hy, b_y" (H + 1, V).
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
        joint = {joint_name(suffix): ((2 if suffix else 1) * H + 1, 4 * H) for suffix in suffixes(layers)}
        joint = {"W_x": (V, 4 * H), **joint, "W_hy, b_y": (H + 1, V)}
        self._suffixes = suffixes(layers)
        size = sum(int(np.prod(shape)) for shape in matrices.values())
        self.whole = mx.nd.zeros(size + extra, ctx=ctx, dtype=dtype)
        self.flat, self.extra = self.whole[:size], self.whole[size:]
        self.views = self._cut(matrices)
        self.joint = self._cut(joint)

    def _cut(self, shapes: Mapping[str, Tuple[int, ...]]) -> Dict[str, mx.nd.NDArray]:
        """Views of these shapes, one behind the other, that cover `flat`."""
        views, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            views[name] = self.flat[start:stop].reshape(shape)
            start = stop
        return views

    def to_document(self) -> Dict[str, np.ndarray]:
        """Copies under the document's names and shapes."""
        fused = {name: view.asnumpy() for name, view in self.views.items()}
        named = {name: fused[name] for name in ("W_hy", "b_y")}
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            for gate, block in zip(GATES, np.split(fused[kind.rstrip("_") + suffix], len(GATES), axis=-1)):
                named[f"{kind}{gate}{suffix}"] = np.ascontiguousarray(block)
        return named

    def from_document(self, named: Mapping[str, np.ndarray]) -> None:
        """Fill from the document's names."""
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            blocks = [named[f"{kind}{gate}{suffix}"] for gate in GATES]
            self.views[kind.rstrip("_") + suffix][:] = np.concatenate(blocks, axis=-1)
        for name in ("W_hy", "b_y"):
            self.views[name][:] = named[name]


def window_graph(F: Any, B: int, T: int, H: int, V: int, layers: int, **arrays: Any) -> Dict[str, Any]:
    """Loss and gradients of one window: forward, softmax cross-entropy, backward, as expressions of F.

    Args:
        F: `mxnet.sym` or `mxnet.nd`.
        **arrays: `inputs` and `targets`, (T, B) tokens each; `h`, `c` (B, layers * H); and the fused parameters
            under the names of `FlatArray.views`.

    Returns:
        `loss` (1,), summed over the window in nats; `votes` (VOTES,), zeros, or NaN where the loss is not finite; the
        state after it, `h`, `c`; `dz`, (T * B, 4H), from which `lookup_gradient` makes that of W_x; and the other
        gradients of `loss` under the names of `FlatArray.joint`.
    """
    done, w_hy = layers_forward(F, arrays, T, H, layers), arrays["W_hy"]
    h_out = done[-1].h_after
    logits = F.FullyConnected(h_out, F.transpose(w_hy), arrays["b_y"], num_hidden=V)
    probabilities = F.softmax(logits)
    targets = F.reshape(arrays["targets"], shape=(-1,))
    # The smallest normal float32 keeps log finite where a probability underflowed: a character costs 87 nats at most.
    loss = F.sum(-F.log(F.pick(probabilities, targets) + SMALLEST_NORMAL))

    dlogits = minus_one_hot(F, probabilities, targets, B * T, V)
    dh_out = F.FullyConnected(dlogits, w_hy, num_hidden=H, no_bias=True)
    return {
        "loss": loss,
        "votes": F.broadcast_to(F.reshape(loss * 0, shape=(1,)), shape=(VOTES,)),
        "h": side_by_side(F, [layer.h for layer in done]),
        "c": side_by_side(F, [layer.c for layer in done]),
        **layers_backward(F, dh_out, done, arrays, B, H),
        "W_hy, b_y": F.dot(with_ones(F, h_out), dlogits, transpose_a=True),
    }


def minus_one_hot(F: Any, probabilities: Any, targets: Any, rows: int, V: int) -> Any:
    """The gradient of softmax cross-entropy: the probabilities, with one subtracted at every target; (rows, V).

    An indexed assignment in place: a one-hot matrix to add would be written, read and thrown away. BlockGrad lets it
    into a static graph, which asks every operator for a derivative whether anybody needs it or not.
    """
    where = F.stack(F.arange(0, rows, dtype="int32"), targets, axis=0)
    values = F.pick(probabilities, targets) - 1
    dlogits = F.BlockGrad(probabilities)
    return F.BlockGrad(F._internal._scatter_set_nd(dlogits, values, where, shape=(rows, V), out=dlogits))


def lookup_gradient(dz: mx.nd.NDArray, inputs: np.ndarray, out: mx.nd.NDArray) -> None:
    """The gradient of a row lookup: zeros with row k of `dz` added at the row that character k selected.

    As a product with the sparse one-hot matrix, in which one thread sums a row in a fixed order. MXNet's scatter adds
    in whatever order its threads come, so that no two runs would end with the same bits.

    Args:
        dz: (T * B, 4H), the gradient of what was looked up, time first.
        inputs: (T, B) tokens.
        out: (V, 4H), overwritten.
    """
    index = inputs.reshape(-1)
    order = np.argsort(index, kind="stable")
    starts = np.zeros(len(out) + 1, np.int64)
    np.cumsum(np.bincount(index, minlength=len(out)), out=starts[1:])
    parts = [mx.nd.from_numpy(part) for part in (np.ones(len(index), dz.dtype), order, starts)]
    one_hot = mx.nd.sparse.csr_matrix(tuple(parts), shape=(len(out), len(index)), ctx=dz.context)
    mx.nd.sparse.dot(one_hot, dz, out=out)


def on_device(tokens: np.ndarray, ctx: mx.Context) -> mx.nd.NDArray:
    """A copy as int32, on its way to the device: nothing waits for it."""
    return mx.nd.from_numpy(np.array(tokens, np.int32, order="C")).as_in_context(ctx)


class Compiled(NamedTuple):
    """The graph of one window's shape, and the order of its arguments."""

    graph: Any
    order: List[str]


class CharLSTM:
    """The model of one worker: parameters, gradients, and the compiled graph that computes the latter.

    Attributes:
        parameters: what is trained.
        gradients: what `loss_and_gradients` fills, of the same layout, with `extra` for the workers' votes: zeros, or
            NaN where the loss is not finite, so that an average over workers tells all of them.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, layers: int = 1) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.layers = layers
        self.ctx = ctx
        self.parameters = FlatArray(vocab_size, hidden_size, ctx, layers=layers)
        self.gradients = FlatArray(vocab_size, hidden_size, ctx, layers=layers, extra=VOTES)
        self._compiled: Dict[Tuple[int, int, Tuple[str, ...]], Compiled] = {}
        # Fresh memory for `dz` at every step would cost a page fault every 4 KiB.
        self._dz: Dict[Tuple[int, int], mx.nd.NDArray] = {}

    def load(self, named: Mapping[str, np.ndarray], source: str) -> None:
        """Take parameters under the document's names.

        Raises:
            UserError: naming `source` and the parameter, when a name is missing, unknown, of another shape or holds
                numbers that are not finite.
        """
        shapes = document_shapes(self.vocab_size, self.hidden_size, self.layers)
        for name in [*shapes, *named]:
            found = named[name].shape if name in named else None
            if found != shapes.get(name):
                is_of = "is missing" if found is None else f"has shape {found}"
                needs = f"needs {shapes[name]}" if name in shapes else "has none of that name"
                raise UserError(
                    f"{source}: parameter {name} {is_of}, this model {needs}: give weights of the same vocabulary, "
                    "--hidden-size and --layers",
                    ExitStatus.BAD_CONFIG,
                )
        for name, values in named.items():
            if not np.isfinite(values).all():
                raise UserError(f"{source}: parameter {name} holds numbers that are not finite", ExitStatus.BAD_DATA)
        self.parameters.from_document(named)

    def zero_state(self, streams: int) -> LSTMState:
        """The state before any character."""
        shape = (streams, self.layers * self.hidden_size)
        return LSTMState(mx.nd.zeros(shape, ctx=self.ctx), mx.nd.zeros(shape, ctx=self.ctx))

    def loss_and_gradients(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[Any, LSTMState]:
        """Forward and backward through one window; overwrites `self.gradients`.

        Args:
            inputs, targets: (B, T) tokens, as `batches` makes them.
            state: of B streams.

        Returns:
            The loss summed over the B * T characters, in nats, (1,), still on the device; and the state after it.
        """
        B, T = inputs.shape
        if (B, T) not in self._dz:
            self._dz[B, T] = mx.nd.empty((T * B, 4 * self.hidden_size), ctx=self.ctx)
        dz, gradients = self._dz[B, T], dict(self.gradients.joint)
        d_w_x = gradients.pop("W_x")
        outputs = {"votes": self.gradients.extra, "dz": dz, **gradients}
        loss, after = self._run(inputs, targets, state, outputs)
        lookup_gradient(dz, inputs.T, d_w_x)
        return loss, after

    def loss(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[Any, LSTMState]:
        """Forward through one window; what `loss_and_gradients` returns, without the gradients."""
        return self._run(inputs, targets, state, {})

    def _run(
        self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState, outputs: Mapping[str, mx.nd.NDArray]
    ) -> Tuple[Any, LSTMState]:
        """Compute a window's loss and the state after it, and fill those of its other `outputs` that are given."""
        B, T = inputs.shape
        graph, order = self._compile(B, T, tuple(outputs))
        loss = mx.nd.empty((1,), ctx=self.ctx)
        after = LSTMState(mx.nd.empty(state.h.shape, ctx=self.ctx), mx.nd.empty(state.c.shape, ctx=self.ctx))
        arrays = {
            "inputs": on_device(inputs.T, self.ctx),
            "targets": on_device(targets.T, self.ctx),
            **state._asdict(),
            **self.parameters.views,
        }
        graph(*(arrays[name] for name in order), out=[loss, *after, *outputs.values()])
        return loss, after

    def _compile(self, B: int, T: int, outputs: Tuple[str, ...]) -> Compiled:
        """One static graph for windows of (B, T), its memory planned once."""
        if (B, T, outputs) not in self._compiled:
            names = ["inputs", "targets", "h", "c", *self.parameters.views]
            arrays = {name: mx.sym.var(name) for name in names}
            window = window_graph(mx.sym, B, T, self.hidden_size, self.vocab_size, self.layers, **arrays)
            graph = mx.sym.Group([window[name] for name in ("loss", "h", "c", *outputs)])
            compiled = mx.nd.CachedOp(graph, [("static_alloc", True), ("static_shape", True)])
            self._compiled[B, T, outputs] = Compiled(compiled, graph.list_arguments())
        return self._compiled[B, T, outputs]
