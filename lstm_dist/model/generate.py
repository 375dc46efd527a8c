"""Continue a prefix: greedily as in the D2L chapter, or by sampling with a temperature from the top k characters."""

from typing import Any, List, Mapping, Optional

import mxnet as mx
import numpy as np

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model import lstm
from lstm_dist.model.char_lstm import CharLSTM, on_device
from lstm_dist.model.parameters import suffixes
from lstm_dist.model.stacked_lstm import apart, side_by_side
from lstm_dist.rng import Purpose, generator


def continue_text(
    model: CharLSTM,
    vocabulary: Vocabulary,
    prefix: str,
    length: int,
    temperature: float = 0.0,
    top_k: Optional[int] = None,
    seed: int = 0,
) -> str:
    """Return the prefix followed by exactly `length` new characters.

    Args:
        model: the model, which is not modified.
        vocabulary: of the model.
        prefix: at least one character, each in the vocabulary.
        length: number of new characters.
        temperature: 0 always takes the likeliest character; 1 samples from the model's own distribution.
        top_k: sample from the k likeliest characters only.
        seed: of the sampling.

    Raises:
        UserError: if the vocabulary lacks a character of the prefix; the message names it.
    """
    random = generator(seed, Purpose.SAMPLE)
    reader = _Reader(model)
    for token in vocabulary.encode(prefix):
        logits = reader.read(int(token))
    tokens = []
    for _ in range(length):
        tokens.append(choose(logits, temperature, top_k, random))
        if len(tokens) < length:
            logits = reader.read(tokens[-1])
    return prefix + vocabulary.decode(tokens)


def choose(logits: np.ndarray, temperature: float, top_k: Optional[int], random: np.random.Generator) -> int:
    """Choose a token from (V,) logits; ties for the likeliest go to the smaller token."""
    if temperature == 0:
        return int(logits.argmax())
    # Subtract the maximum first: the best score is then 0, so a tiny temperature cannot produce inf - inf.
    with np.errstate(over="ignore"):
        scores = (logits - logits.max()).astype(np.float64) / temperature
    if top_k is not None and top_k < len(scores):
        least = np.partition(scores, -top_k)[-top_k]
        best = np.flatnonzero(scores >= least)
        # Select by rank, not by value, because ties could otherwise keep more than k.
        best = best[np.argsort(-scores[best], kind="stable")[:top_k]]
        kept = np.full_like(scores, -np.inf)
        kept[best] = scores[best]
        scores = kept
    up_to = np.exp(scores).cumsum()
    return int(up_to.searchsorted(random.random() * up_to[-1], side="right"))


def _character_graph(s: Mapping[str, Any], model: CharLSTM) -> List[Any]:
    """Return the logits after `token`, (1, V), and the new `h` and `c` of all layers, as expressions of symbols `s`."""
    H = model.hidden_size
    hs: List[Any] = []
    cs: List[Any] = []
    begun = (apart(mx.sym, s[name], H, model.layers) for name in ("h", "c"))
    for suffix, h, c in zip(suffixes(model.layers), *begun):
        w_x, w_h_t, b = (s[f"{name}{suffix}"] for name in ("W_x", "W_h", "b"))
        x = mx.sym.FullyConnected(hs[-1], w_x, num_hidden=4 * H, no_bias=True) if hs else mx.sym.take(w_x, s["token"])
        h_after, c_after, _ = lstm.step_forward(mx.sym, x, h, c, w_h_t, b, H)
        hs, cs = [*hs, h_after], [*cs, c_after]
    logits = mx.sym.FullyConnected(hs[-1], s["W_hy"], s["b_y"], num_hidden=model.vocab_size)
    return [logits, side_by_side(mx.sym, hs), side_by_side(mx.sym, cs)]


class _Reader:
    """Reads one stream character by character from the zero state, with one static graph per character."""

    def __init__(self, model: CharLSTM) -> None:
        self._h, self._c = model.zero_state(1)
        # FullyConnected takes transposed weights; transpose them once for the whole text.
        arrays = {
            name: value if name == "W_x" or value.ndim == 1 else mx.nd.transpose(value)
            for name, value in model.parameters.views.items()
        }
        s = {name: mx.sym.var(name) for name in ("token", "h", "c", *arrays)}
        graph = mx.sym.Group(_character_graph(s, model))
        self._graph = mx.nd.CachedOp(graph, [("static_alloc", True), ("static_shape", True)])
        self._order = graph.list_arguments()
        self._arrays = arrays
        self._ctx = model.ctx

    def read(self, token: int) -> np.ndarray:
        """Return the logits, (V,), of the character after `token`."""
        changing = {"token": on_device(np.array([token]), self._ctx), "h": self._h, "c": self._c}
        arrays = {**self._arrays, **changing}
        logits, self._h, self._c = self._graph(*(arrays[name] for name in self._order))
        row: np.ndarray = logits.asnumpy()[0]
        return row
