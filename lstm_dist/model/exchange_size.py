"""The length of the vector that the workers exchange in a step: control flags and gradients.

This module does not import MXNet, so that reports also count bytes where MXNet cannot be loaded.
"""

from typing import Optional

from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import number_of_parameters

_LENGTHS = 32  # different numbers of rows of W_x to which those of a window are rounded up


def exchanged_numbers(vocab_size: int, hidden_size: int, layers: int, characters: Optional[int]) -> int:
    """Return the length of `GradientBuffer.exchanged` for a window with this many characters, or None for all."""
    rows = rounded_rows(vocab_size, characters)
    return FLAGS + number_of_parameters(vocab_size, hidden_size, layers) - (vocab_size - rows) * 4 * hidden_size


def rounded_rows(vocab_size: int, characters: Optional[int]) -> int:
    """Return a number of rows with space for this many characters, or None for all."""
    if characters is None:
        return vocab_size
    quantum = -(-vocab_size // _LENGTHS)
    return min(vocab_size, -(-characters // quantum) * quantum)
