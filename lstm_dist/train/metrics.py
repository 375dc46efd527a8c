"""Metrics derived from the loss: perplexity and bits per character."""

import math


def perplexity(loss: float) -> float:
    """Return exp(loss), the number of equally likely characters with the same loss.

    Args:
        loss: mean cross-entropy, nats per character.
    """
    return math.exp(loss) if loss < 700 else math.inf


def has_diverged(perplexity: float, characters: int) -> bool:
    """Return whether a perplexity is more than twice that of guessing, which is the number of distinct characters."""
    return perplexity > 2 * characters


def bits_per_char(loss: float) -> float:
    """Return the loss in bits, the mean code length of an ideal compressor that uses the model.

    Args:
        loss: mean cross-entropy, nats per character.
    """
    return loss / math.log(2)
