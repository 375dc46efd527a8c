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

A worker that is to know the characters of the whole batch reads all streams: they follow from the corpus, B, seq_len,
seed, epoch and step, so that no communication is needed.
"""

from typing import Iterator, NamedTuple, Optional

import numpy as np

from lstm_dist.data.token_file import TokenFile, Tokens, read_sequences
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.rng import Purpose, generator

# Consecutive windows of a file are read together, as reading one stream costs 2 us for any length.
_MOST_WINDOWS, _MOST_TOKENS = 16, 2**20


class Window(NamedTuple):
    """One worker's share of one batch; `targets` are `inputs` shifted by one character.

    Attributes:
        inputs: (streams of this worker, seq_len) tokens.
        targets: (streams of this worker, seq_len) tokens.
        characters: the sorted distinct inputs of all workers, or None if they are not known.
    """

    inputs: np.ndarray
    targets: np.ndarray
    characters: Optional[np.ndarray] = None

    @classmethod
    def from_sequences(cls, sequences: np.ndarray, characters: Optional[np.ndarray] = None) -> "Window":
        """Return the window of sequences, (rows, T + 1) tokens: T inputs, and T targets shifted by one."""
        return cls(sequences[:, :-1], sequences[:, 1:], characters)


def distinct(tokens: np.ndarray, vocab_size: int) -> np.ndarray:
    """Return the sorted distinct tokens of an array of any shape, as int32."""
    is_in = np.zeros(vocab_size, np.bool_)
    is_in[tokens] = True
    return np.flatnonzero(is_in).astype(np.int32)


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

    def __init__(
        self, tokens: Tokens, streams: int, seq_len: int, rank: int = 0, size: int = 1, vocab_size: Optional[int] = None
    ) -> None:
        """Cut the corpus into streams.

        Args:
            tokens: of the corpus.
            streams: B, of all workers.
            seq_len: characters in a window.
            rank, size: this worker, and the number of workers.
            vocab_size: V, if the windows are to have the characters of all workers.

        Raises:
            UserError: if the corpus is too short.
        """
        self.rows = shard(streams, rank, size)
        _require_length(tokens, streams * (seq_len + 1), streams, seq_len)
        length = len(tokens) // streams
        self._reader = _Reader(tokens, self.rows, seq_len, vocab_size)
        self.steps_per_epoch = (length - 1) // seq_len
        self._starts = np.arange(streams) * length
        is_file = isinstance(tokens, TokenFile)
        self._ahead = min(_MOST_WINDOWS, max(1, _MOST_TOKENS // (streams * seq_len))) if is_file else 1

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:  # noqa: ARG002 - same interface as RandomBatches
        """Yield the windows of one epoch from number `start` on; they are the same in each epoch."""
        for step in range(start, self.steps_per_epoch, self._ahead):
            count = min(self._ahead, self.steps_per_epoch - step)
            yield from self._reader.read(self._starts + step * self._reader.seq_len, count)


class RandomBatches:
    """The D2L chapter's `data_iter_random`, sharded: one permutation of the examples per epoch, equal on all ranks.

    Attributes:
        rows: this worker's range of the streams.
        steps_per_epoch: the same for every worker.
    """

    def __init__(
        self,
        tokens: Tokens,
        streams: int,
        seq_len: int,
        rank: int = 0,
        size: int = 1,
        seed: int = 0,
        vocab_size: Optional[int] = None,
    ) -> None:
        """Cut the corpus into examples; arguments as in ConsecutiveBatches, and the seed of the permutations."""
        self.rows = shard(streams, rank, size)
        _require_length(tokens, streams * seq_len + 1, streams, seq_len)
        self._reader = _Reader(tokens, self.rows, seq_len, vocab_size)
        self._examples = (len(tokens) - 1) // seq_len
        self.steps_per_epoch = self._examples // streams
        self._streams, self._seed = streams, seed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """Yield the windows of one epoch from number `start` on, in the order determined by (seed, epoch)."""
        order = np.arange(self._examples, dtype=np.int32)  # half the memory of permutation(), in the same order
        generator(self._seed, Purpose.SHUFFLE, epoch).shuffle(order)
        for step in range(start, self.steps_per_epoch):
            examples = order[step * self._streams : (step + 1) * self._streams]
            yield from self._reader.read(examples.astype(np.int64) * self._reader.seq_len, 1)


class _Reader(NamedTuple):
    """Reads one worker's share of windows, and the characters of all workers' if `vocab_size` is given."""

    tokens: Tokens
    rows: slice
    seq_len: int
    vocab_size: Optional[int]

    def read(self, starts: np.ndarray, count: int) -> Iterator[Window]:
        """Yield `count` consecutive windows, the first of which has the sequences that begin at `starts`, (B,)."""
        T, known = self.seq_len, self.vocab_size
        read = read_sequences(self.tokens, starts[self.rows] if known is None else starts, count * T + 1)
        own = read if known is None else read[self.rows]
        for begin in range(0, count * T, T):
            characters = None if known is None else distinct(read[:, begin : begin + T], known)
            yield Window.from_sequences(own[:, begin : begin + T + 1], characters)


def _require_length(tokens: Tokens, needed: int, streams: int, seq_len: int) -> None:
    """Raise UserError unless there are at least `needed` tokens."""
    if len(tokens) < needed:
        raise UserError(
            f"--corpus: too short, {streams} streams of {seq_len} characters need {needed:,} and it has "
            f"{len(tokens):,}: give a longer text, raise --max-chars, or lower --seq-len or --global-batch-size",
            ExitStatus.BAD_DATA,
        )
