"""Choice, before the first step, of what the workers exchange: the gradient of all rows of W_x, or of a batch's only.

The input of the network selects rows of W_x, so the gradient of all other rows is zero. The workers need not tell each
other which rows these are: every worker has the corpus, and reads all streams of the batch.
"""

from typing import NamedTuple, Optional

import numpy as np

from lstm_dist.data.batching import distinct
from lstm_dist.data.token_file import TokenFile, Tokens, read_sequences
from lstm_dist.model.exchange_size import exchanged_numbers

_SAMPLED = 4  # windows whose characters are counted

# Seconds that finding the rows costs in a step: for any batch, for each of its characters, and for each of its streams
# if these are in a file. Measured on a CPU.
_PER_STEP, _PER_CHARACTER, _PER_STREAM_IN_FILE = 2.5e-4, 7e-9, 2e-6

# Seconds that a byte of the gradient costs: clipping and update, measured on a CPU, and sending it at 10 Gbit/s.
_PER_BYTE, _PER_BYTE_SENT = 3e-10, 8e-10

_NUMBER = 4  # bytes of a gradient in memory


class ExchangePlan(NamedTuple):
    """What a worker sends in a step; the same on all workers, as it follows from corpus and settings.

    Attributes:
        vocab_size, hidden_size, layers: sizes of the model.
        characters: mean number of distinct characters in a batch.
        uses_rows: whether only their rows of the gradient of W_x are exchanged and used.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    characters: int
    uses_rows: bool

    @classmethod
    def choose(
        cls, tokens: Tokens, workers: int, streams: int, seq_len: int, vocab_size: int, hidden_size: int, layers: int
    ) -> "ExchangePlan":
        """Count the characters of a few batches, and choose what is faster by an estimate.

        Args:
            tokens: of the training set.
            workers: their number.
            streams: of all workers.
            seq_len: characters in a window.
            vocab_size, hidden_size, layers: sizes of the model.

        Raises:
            UserError: naming the prepared corpus, if it cannot be read.
        """
        characters = mean_characters(tokens, streams, seq_len, vocab_size)
        dense, some = (exchanged_numbers(vocab_size, hidden_size, layers, rows) for rows in (None, characters))
        cost = _PER_STEP + streams * seq_len * _PER_CHARACTER
        if isinstance(tokens, TokenFile):
            cost += streams * _PER_STREAM_IN_FILE
        saved = (dense - some) * _NUMBER * (_PER_BYTE + (_PER_BYTE_SENT if workers > 1 else 0))
        return cls(vocab_size, hidden_size, layers, characters, cost < saved)

    @property
    def numbers(self) -> int:
        """Return the length of the vector that is exchanged in a step with the mean number of characters."""
        rows = self.characters if self.uses_rows else None
        return exchanged_numbers(self.vocab_size, self.hidden_size, self.layers, rows)

    @property
    def dense_numbers(self) -> int:
        """Return the length of the vector with the gradients of all parameters."""
        return exchanged_numbers(self.vocab_size, self.hidden_size, self.layers, None)

    @property
    def batch_vocab_size(self) -> Optional[int]:
        """Return the vocabulary size if batches are to find their characters, else None."""
        return self.vocab_size if self.uses_rows else None

    def describe(self, wire_dtype: str) -> str:
        """Describe in one line what is exchanged or, by a single worker, used."""
        width = np.dtype(wire_dtype).itemsize
        sent, dense = (f"{width * numbers / 1e6:.3g}" for numbers in (self.numbers, self.dense_numbers))
        if not self.uses_rows:
            return f"gradients: {dense} MB a step"
        return (
            f"gradients: {sent} of {dense} MB a step, as a batch has about {self.characters:,} of the "
            f"{self.vocab_size:,} characters (rows of W_x)"
        )


def mean_characters(tokens: Tokens, streams: int, seq_len: int, vocab_size: int) -> int:
    """Return the mean number of distinct characters in batches from different places of the text."""
    length = len(tokens) // streams
    seq_len = min(seq_len, length)  # of a text that is too short, which is refused later
    places = np.linspace(0, length - seq_len, _SAMPLED).astype(np.int64)
    starts = np.arange(streams) * length
    counts = [len(distinct(read_sequences(tokens, starts + place, seq_len), vocab_size)) for place in places]
    return round(sum(counts) / len(counts))
