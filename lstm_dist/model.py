"""CharLSTM: the parameters on a device, and loss and gradients of one window."""

from typing import Any, Dict, List, Mapping, NamedTuple, Tuple

import mxnet as mx
import numpy as np

from lstm_dist import lstm
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.lstm import GATES
from lstm_dist.parameters import VOTES, document_shapes

SMALLEST_NORMAL = float(np.finfo(np.float32).tiny)


class LSTMState(NamedTuple):
    """What is carried from one window to the next; both (B, H)."""

    h: mx.nd.NDArray
    c: mx.nd.NDArray


class FlatArray:
    """One vector that holds every parameter (or every gradient), and the fused matrices as views into it.

    One vector is one allreduce, one norm and one update a step, summed in an order that never changes.

    Attributes:
        flat: (number of parameters,).
        extra: (extra,), numbers that ride behind them.
        whole: both, one behind the other.
        views: W_x (V, 4H), W_h (H, 4H), b (4H,), W_hy (H, V), b_y (V,), all sharing the memory of `flat`.
        joint: W_x again, and the other matrices with their biases as last rows: "W_h, b" (H + 1, 4H) and "W_hy, b_y"
            (H + 1, V).
    """

    def __init__(
        self, vocab_size: int, hidden_size: int, ctx: mx.Context, dtype: str = "float32", extra: int = 0
    ) -> None:
        V, H = vocab_size, hidden_size
        matrices = {"W_x": (V, 4 * H), "W_h": (H, 4 * H), "b": (4 * H,), "W_hy": (H, V), "b_y": (V,)}
        joint = {"W_x": (V, 4 * H), "W_h, b": (H + 1, 4 * H), "W_hy, b_y": (H + 1, V)}
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
        """Copies under the document's 14 names and shapes."""
        fused = {name: view.asnumpy() for name, view in self.views.items()}
        named = {}
        for kind in ("W_x", "W_h", "b"):
            for gate, block in zip(GATES, np.split(fused[kind], len(GATES), axis=-1)):
                named[f"{kind}_{gate}" if kind == "b" else f"{kind}{gate}"] = np.ascontiguousarray(block)
        return {**named, "W_hy": fused["W_hy"], "b_y": fused["b_y"]}

    def from_document(self, named: Mapping[str, np.ndarray]) -> None:
        """Fill from the document's 14 names."""
        for kind, joint in (("W_x", ""), ("W_h", ""), ("b", "_")):
            self.views[kind][:] = np.concatenate([named[f"{kind}{joint}{gate}"] for gate in GATES], axis=-1)
        for name in ("W_hy", "b_y"):
            self.views[name][:] = named[name]


def window_graph(F: Any, B: int, T: int, H: int, V: int, **arrays: Any) -> Dict[str, Any]:
    """Loss and gradients of one window: forward, softmax cross-entropy, backward, as expressions of F.

    Args:
        F: `mxnet.sym` or `mxnet.nd`.
        **arrays: `inputs` and `targets`, (T, B) tokens each; `h`, `c` (B, H); and the fused parameters
            `W_x`, `W_h`, `b`, `W_hy`, `b_y`.

    Returns:
        `loss` (1,), summed over the window in nats; `votes` (VOTES,), zeros, or NaN where the loss is not finite; the
        state after it, `h`, `c`; `dz`, (T * B, 4H), from which `lookup_gradient` makes that of W_x; and the other
        gradients of `loss` under the names of `FlatArray.joint`.
    """
    w_h, w_hy = arrays["W_h"], arrays["W_hy"]
    hs, c, steps = lstm.lstm_forward(
        F, arrays["inputs"], arrays["h"], arrays["c"], arrays["W_x"], w_h, arrays["b"], T, H
    )

    h_out = F.concat(*hs[1:], dim=0)  # (T*B, H)
    logits = F.FullyConnected(h_out, F.transpose(w_hy), arrays["b_y"], num_hidden=V)
    probabilities = F.softmax(logits)
    targets = F.reshape(arrays["targets"], shape=(-1,))
    # The smallest normal float32 keeps log finite where a probability underflowed: a character costs 87 nats at most.
    loss = F.sum(-F.log(F.pick(probabilities, targets) + SMALLEST_NORMAL))

    dlogits = minus_one_hot(F, probabilities, targets, B * T, V)
    dh_out = F.FullyConnected(dlogits, w_hy, num_hidden=H, no_bias=True)
    # A bias is the weight of an input that is always one, so its gradient is one more row of the same product.
    ones = F.ones_like(F.slice_axis(h_out, axis=1, begin=0, end=1))
    dz = lstm.lstm_backward(F, dh_out, steps, w_h, B, H)
    return {
        "loss": loss,
        "votes": F.broadcast_to(F.reshape(loss * 0, shape=(1,)), shape=(VOTES,)),
        "h": hs[-1],
        "c": c,
        "dz": dz,
        "W_h, b": F.dot(F.concat(F.concat(*hs[:-1], dim=0), ones, dim=1), dz, transpose_a=True),
        "W_hy, b_y": F.dot(F.concat(h_out, ones, dim=1), dlogits, transpose_a=True),
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


_GRADIENTS = ("votes", "dz", "W_h, b", "W_hy, b_y")


class CharLSTM:
    """The model of one worker: parameters, gradients, and the compiled graph that computes the latter.

    Attributes:
        parameters: what is trained.
        gradients: what `loss_and_gradients` fills, of the same layout, with `extra` for the workers' votes: zeros, or
            NaN where the loss is not finite, so that an average over workers tells all of them.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.ctx = ctx
        self.parameters = FlatArray(vocab_size, hidden_size, ctx)
        self.gradients = FlatArray(vocab_size, hidden_size, ctx, extra=VOTES)
        self._compiled: Dict[Tuple[int, int, Tuple[str, ...]], Compiled] = {}
        # Fresh memory for `dz` at every step would cost a page fault every 4 KiB.
        self._dz: Dict[Tuple[int, int], mx.nd.NDArray] = {}

    def load(self, named: Mapping[str, np.ndarray], source: str) -> None:
        """Take parameters under the document's names.

        Raises:
            UserError: naming `source` and the parameter, when a name is missing, unknown, of another shape or holds
                numbers that are not finite.
        """
        shapes = document_shapes(self.vocab_size, self.hidden_size)
        for name in [*shapes, *named]:
            found = named[name].shape if name in named else None
            if found != shapes.get(name):
                raise UserError(
                    f"{source}: parameter {name} has shape {found}, this model needs {shapes.get(name)}: "
                    "give weights of the same vocabulary and --hidden-size",
                    ExitStatus.BAD_CONFIG,
                )
        for name, values in named.items():
            if not np.isfinite(values).all():
                raise UserError(f"{source}: parameter {name} holds numbers that are not finite", ExitStatus.BAD_DATA)
        self.parameters.from_document(named)

    def zero_state(self, streams: int) -> LSTMState:
        """The state before any character."""
        shape = (streams, self.hidden_size)
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
        dz, (d_w_x, *gradients) = self._dz[B, T], self.gradients.joint.values()
        outputs = dict(zip(_GRADIENTS, [self.gradients.extra, dz, *gradients]))
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
            window = window_graph(mx.sym, B, T, self.hidden_size, self.vocab_size, **arrays)
            graph = mx.sym.Group([window[name] for name in ("loss", "h", "c", *outputs)])
            compiled = mx.nd.CachedOp(graph, [("static_alloc", True), ("static_shape", True)])
            self._compiled[B, T, outputs] = Compiled(compiled, graph.list_arguments())
        return self._compiled[B, T, outputs]
