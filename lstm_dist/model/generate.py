"""Continue a prefix: greedily as in the D2L chapter, or by sampling with a temperature from the top k characters."""

from typing import Optional

import numpy as np

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model.language_model import LanguageModel
from lstm_dist.rng import Purpose, generator


def continue_text(
    model: LanguageModel,
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
    reader = model.reader()
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
