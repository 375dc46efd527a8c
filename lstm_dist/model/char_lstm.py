"""CharLSTM: the parameters on a device, and the loss and gradients of one window."""

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
    """State carried from one window to the next; both (B, layers * H), lowest layer first."""

    h: mx.nd.NDArray
    c: mx.nd.NDArray


class FlatArray:
    """One vector that holds every parameter (or every gradient), with the fused matrices as views into it.

    With one vector, a step needs one allreduce, one norm and one update, and the summation order is fixed.

    Attributes:
        flat: (number of parameters,).
        extra: (extra,), additional numbers after the parameters.
        whole: `flat` followed by `extra`.
        views: W_x (V, 4H), W_h (H, 4H), b (4H,), the same for the upper layers (W_x_2 (H, 4H), ...), W_hy (H, V) and
            b_y (V,); all share the memory of `flat`.
        joint: W_x, and the other matrices with their biases as last rows: "W_h, b" (H + 1, 4H), "W_x_2, W_h_2, b_2"
            (2H + 1, 4H), ..., and "W_hy, b_y" (H + 1, V).
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
        """Return consecutive views of these shapes that cover `flat`."""
        views, start = {}, 0
        for name, shape in shapes.items():
            stop = start + int(np.prod(shape))
            views[name] = self.flat[start:stop].reshape(shape)
            start = stop
        return views

    def to_document(self) -> Dict[str, np.ndarray]:
        """Return copies under the names and shapes of the D2L chapter."""
        fused = {name: view.asnumpy() for name, view in self.views.items()}
        named = {name: fused[name] for name in ("W_hy", "b_y")}
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            for gate, block in zip(GATES, np.split(fused[kind.rstrip("_") + suffix], len(GATES), axis=-1)):
                named[f"{kind}{gate}{suffix}"] = np.ascontiguousarray(block)
        return named

    def from_document(self, named: Mapping[str, np.ndarray]) -> None:
        """Fill the vector from parameters under the names of the D2L chapter."""
        for kind, suffix in product(("W_x", "W_h", "b_"), self._suffixes):
            blocks = [named[f"{kind}{gate}{suffix}"] for gate in GATES]
            self.views[kind.rstrip("_") + suffix][:] = np.concatenate(blocks, axis=-1)
        for name in ("W_hy", "b_y"):
            self.views[name][:] = named[name]


def window_graph(F: Any, B: int, T: int, H: int, V: int, layers: int, **arrays: Any) -> Dict[str, Any]:
    """Build loss and gradients of one window (forward, softmax cross-entropy, backward) as expressions of F.

    Args:
        F: `mxnet.sym` or `mxnet.nd`.
        **arrays: `inputs` and `targets`, (T, B) tokens each; `h` and `c`, (B, layers * H) each; and the fused
            parameters under the names of `FlatArray.views`.

    Returns:
        `loss` (1,), summed over the window in nats; `votes` (VOTES,), zeros, or NaN if the loss is not finite; the
        final state, `h` and `c`; `dz`, (T * B, 4H), from which `lookup_gradient` computes the gradient of W_x; and the
        other gradients of `loss` under the names of `FlatArray.joint`.
    """
    done, w_hy = layers_forward(F, arrays, T, H, layers), arrays["W_hy"]
    h_out = done[-1].h_after
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
        "votes": F.broadcast_to(F.reshape(loss * 0, shape=(1,)), shape=(VOTES,)),
        "h": side_by_side(F, [layer.h for layer in done]),
        "c": side_by_side(F, [layer.c for layer in done]),
        **layers_backward(F, dh_out, done, arrays, B, H),
        "W_hy, b_y": F.dot(with_ones(F, h_out), dlogits, transpose_a=True),
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


def lookup_gradient(dz: mx.nd.NDArray, inputs: np.ndarray, out: mx.nd.NDArray) -> None:
    """Compute the gradient of a row lookup: add row k of `dz` to the row that character k selected, starting from 0.

    Computed as a product with the sparse one-hot matrix, in which one thread sums each row in a fixed order. MXNet's
    scatter-add has no fixed order, so its results would not be bitwise reproducible.

    Args:
        dz: (T * B, 4H), the gradient of the looked-up rows, time first.
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
    """Return an int32 copy on the device; the transfer is asynchronous."""
    return mx.nd.from_numpy(np.array(tokens, np.int32, order="C")).as_in_context(ctx)


class Compiled(NamedTuple):
    """The compiled graph for one window shape, and the order of its arguments."""

    graph: Any
    order: List[str]


class CharLSTM:
    """The model of one worker: parameters, gradients, and the compiled graph that computes the gradients.

    Attributes:
        parameters: the trained parameters.
        gradients: filled by `loss_and_gradients`, in the same layout; `extra` holds the worker's votes: zeros, or NaN
            if the loss is not finite, so that averaging makes the failure known to all workers.
    """

    def __init__(self, vocab_size: int, hidden_size: int, ctx: mx.Context, layers: int = 1) -> None:
        self.vocab_size = vocab_size
        self.hidden_size = hidden_size
        self.layers = layers
        self.ctx = ctx
        self.parameters = FlatArray(vocab_size, hidden_size, ctx, layers=layers)
        self.gradients = FlatArray(vocab_size, hidden_size, ctx, layers=layers, extra=VOTES)
        self._compiled: Dict[Tuple[int, int, Tuple[str, ...]], Compiled] = {}
        # `dz` is reused because newly allocated memory would cost a page fault every 4 KiB at every step.
        self._dz: Dict[Tuple[int, int], mx.nd.NDArray] = {}

    def load(self, named: Mapping[str, np.ndarray], source: str) -> None:
        """Load parameters under the names of the D2L chapter.

        Raises:
            UserError: naming `source` and the parameter, if one is missing, unknown, has a different shape or holds
                non-finite numbers.
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
        """Return the zero state, which precedes the first character."""
        shape = (streams, self.layers * self.hidden_size)
        return LSTMState(mx.nd.zeros(shape, ctx=self.ctx), mx.nd.zeros(shape, ctx=self.ctx))

    def loss_and_gradients(self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState) -> Tuple[Any, LSTMState]:
        """Run forward and backward through one window; overwrites `self.gradients`.

        Args:
            inputs, targets: (B, T) tokens, as `batches` makes them.
            state: of B streams.

        Returns:
            The loss summed over the B * T characters, in nats, (1,), on the device; and the final state.
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
        """Run forward through one window; returns the same as `loss_and_gradients` without computing gradients."""
        return self._run(inputs, targets, state, {})

    def _run(
        self, inputs: np.ndarray, targets: np.ndarray, state: LSTMState, outputs: Mapping[str, mx.nd.NDArray]
    ) -> Tuple[Any, LSTMState]:
        """Compute a window's loss and final state, and fill the other requested `outputs`."""
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
        """Return the static graph for windows of (B, T); compiled on first use, so that memory is planned once."""
        if (B, T, outputs) not in self._compiled:
            names = ["inputs", "targets", "h", "c", *self.parameters.views]
            arrays = {name: mx.sym.var(name) for name in names}
            window = window_graph(mx.sym, B, T, self.hidden_size, self.vocab_size, self.layers, **arrays)
            graph = mx.sym.Group([window[name] for name in ("loss", "h", "c", *outputs)])
            compiled = mx.nd.CachedOp(graph, [("static_alloc", True), ("static_shape", True)])
            self._compiled[B, T, outputs] = Compiled(compiled, graph.list_arguments())
        return self._compiled[B, T, outputs]
