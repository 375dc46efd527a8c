"""Continue a prefix: greedily as in the document, or drawn at a temperature from the best k characters."""

from typing import Any, Optional

import mxnet as mx
import numpy as np

from lstm_dist import lstm
from lstm_dist.corpus import Vocabulary
from lstm_dist.model import CharLSTM
from lstm_dist.randomness import Purpose, generator


def continue_text(
    model: CharLSTM,
    vocabulary: Vocabulary,
    prefix: str,
    length: int,
    temperature: float = 0.0,
    top_k: Optional[int] = None,
    seed: int = 0,
) -> str:
    """The prefix and exactly `length` new characters.

    Args:
        model: its parameters are read, nothing is changed.
        vocabulary: of the model.
        prefix: at least one character, each in the vocabulary.
        length: new characters.
        temperature: 0 takes the likeliest character every time; 1 draws from the model's own distribution.
        top_k: draw among the so many likeliest only.
        seed: of the drawing.

    Raises:
        UserError: when the vocabulary lacks a character of the prefix; the message names it.
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
    """One token from (V,) logits; ties of the likeliest go to the smaller token."""
    if temperature == 0:
        return int(logits.argmax())
    # The best score is 0, so that no temperature, however small, makes two infinities of which to take the difference.
    with np.errstate(over="ignore"):
        scores = (logits - logits.max()).astype(np.float64) / temperature
    if top_k is not None and top_k < len(scores):
        # By rank, not by value, so that ties cannot make it more than k.
        scores[np.argsort(-scores, kind="stable")[top_k:]] = -np.inf
    weights = np.exp(scores)
    return int(random.choice(len(weights), p=weights / weights.sum()))


class _Reader:
    """One stream that is read character by character, from the zero state."""

    def __init__(self, model: CharLSTM) -> None:
        self._model = model
        self._state = model.zero_state(1)
        self._w_h_t = mx.nd.transpose(model.parameters.views["W_h"])

    def read(self, token: int) -> Any:
        """The logits, (V,), of the character after `token`."""
        p, H = self._model.parameters.views, self._model.hidden_size
        x_gates = p["W_x"][token : token + 1]
        h, c, _ = lstm.step_forward(mx.nd, x_gates, *self._state, self._w_h_t, p["b"], H)
        self._state = self._state._replace(h=h, c=c)
        return (mx.nd.dot(h, p["W_hy"]) + p["b_y"]).asnumpy()[0]
