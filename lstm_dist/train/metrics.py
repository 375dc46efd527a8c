"""What a loss means: perplexity and bits per character."""

import math


def perplexity(loss: float) -> float:
    """exp(loss), the size of the alphabet among which the model is, in effect, choosing at random.

    Args:
        loss: mean cross-entropy, nats per character.
    """
    return math.exp(loss) if loss < 700 else math.inf


def bits_per_char(loss: float) -> float:
    """The same in bits, what a perfect compressor driven by the model would spend on a character.

    Args:
        loss: mean cross-entropy, nats per character.
    """
    return loss / math.log(2)
