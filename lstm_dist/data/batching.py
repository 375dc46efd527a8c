"""Splitting of tokens into streams, one share for each worker, and windows. Uses numpy only.

The corpus is cut into B streams, B being the global batch size. Worker r of N owns a contiguous range of them:

    stream 0   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...        window t of all streams is one global batch, the same
    stream 1   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...  r=0   characters for every N. Window t+1 continues window t, so
    ---------------------------------------------          the LSTM's state is carried from one to the next; it is
    stream 2   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...        zeroed at the start of an epoch. A remainder too short
    stream 3   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...  r=1   for a window of every stream is left out, as in the
                <-- seq_len -->                            D2L chapter.

Random sampling instead draws the B examples of a step from one seeded permutation per epoch, and worker r takes the
same range of rows of each batch. In both modes the number of steps depends on the corpus, B and seq_len alone, so all
ranks take the same number. The tokens may be in a file, of which only windows are read.
"""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.token_file import Tokens, read_sequences
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.rng import Purpose, generator


class Window(NamedTuple):
    """One worker's share of one batch; `targets` are `inputs` shifted by one character.

    Attributes:
        inputs: (streams of this worker, seq_len) tokens.
        targets: (streams of this worker, seq_len) tokens.
    """

    inputs: np.ndarray
    targets: np.ndarray

    @classmethod
    def from_sequences(cls, sequences: np.ndarray) -> "Window":
        """Return the window of sequences, (rows, T + 1) tokens: T inputs, and T targets shifted by one."""
        return cls(sequences[:, :-1], sequences[:, 1:])


def shard(streams: int, rank: int, size: int) -> slice:
    """Return the contiguous range of rows of worker `rank` of `size`; range lengths differ by at most one.

    Raises:
        UserError: when there are more workers than streams.
    """
    if size > streams:
        raise UserError(
            f"--global-batch-size {streams}: fewer streams than the {size} workers; give each worker at least one, "
            f"for example --global-batch-size {size}"
        )
    return slice(streams * rank // size, streams * (rank + 1) // size)


class ConsecutiveBatches:
    """The D2L chapter's `data_iter_consecutive`, sharded: each row follows one stream, so state may be carried.

    Attributes:
        rows: this worker's range of the streams.
        steps_per_epoch: the same for every worker.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, rank: int = 0, size: int = 1) -> None:
        self.rows = shard(streams, rank, size)
        _require_length(tokens, streams * (seq_len + 1), streams, seq_len)
        length = len(tokens) // streams
        self.seq_len = seq_len
        self.steps_per_epoch = (length - 1) // seq_len
        self._tokens, self._starts = tokens, np.arange(streams)[self.rows] * length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:  # noqa: ARG002 - same interface as RandomBatches
        """Yield the windows of one epoch from number `start` on; they are the same in each epoch."""
        for step in range(start, self.steps_per_epoch):
            starts = self._starts + step * self.seq_len
            yield Window.from_sequences(read_sequences(self._tokens, starts, self.seq_len + 1))


class RandomBatches:
    """The D2L chapter's `data_iter_random`, sharded: one permutation of the examples per epoch, equal on all ranks.

    Attributes:
        rows: this worker's range of the streams.
        steps_per_epoch: the same for every worker.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, rank: int = 0, size: int = 1, seed: int = 0) -> None:
        self.rows = shard(streams, rank, size)
        _require_length(tokens, streams * seq_len + 1, streams, seq_len)
        self._examples = (len(tokens) - 1) // seq_len
        self.steps_per_epoch = self._examples // streams
        self._tokens, self._streams, self._seq_len, self._seed = tokens, streams, seq_len, seed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """Yield the windows of one epoch from number `start` on, in the order determined by (seed, epoch)."""
        order = np.arange(self._examples, dtype=np.int32)  # half the memory of permutation(), in the same order
        generator(self._seed, Purpose.SHUFFLE, epoch).shuffle(order)
        for step in range(start, self.steps_per_epoch):
            examples = order[step * self._streams : (step + 1) * self._streams][self.rows]
            starts = examples.astype(np.int64) * self._seq_len
            yield Window.from_sequences(read_sequences(self._tokens, starts, self._seq_len + 1))


def _require_length(tokens: Tokens, needed: int, streams: int, seq_len: int) -> None:
    """Raise UserError unless there are at least `needed` tokens."""
    if len(tokens) < needed:
        raise UserError(
            f"--corpus: too short, {streams} streams of {seq_len} characters need {needed:,} and it has "
            f"{len(tokens):,}: give a longer text, raise --max-chars, or lower --seq-len or --global-batch-size",
            ExitStatus.BAD_DATA,
        )
