"""Tokens to this worker's streams to windows. numpy only; rank and size are arguments.

The corpus is cut into B streams, B being the whole job's. Worker r of N owns a contiguous run of them:

    stream 0   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...        window t of every stream is one global batch, the same
    stream 1   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...  r=0   characters for every N. Window t+1 continues window t, so
    ---------------------------------------------          the LSTM's state is carried from one to the next; it is
    stream 2   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...        zeroed where an epoch starts again at the first window.
    stream 3   w0 w0 w0 | w1 w1 w1 | w2 w2 w2 | ...  r=1   What does not fill a window of every stream is left out,
                <-- seq_len -->                            as in the document.

Random sampling draws its B examples of a step from one seeded permutation an epoch instead, and worker r takes the same
run of rows of each batch. Either way the number of steps depends on the corpus, B and seq_len alone, so that all ranks
take equally many. The tokens may stand in a file, of which only windows are read.
"""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.token_file import Tokens, runs
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.rng import Purpose, generator


class Window(NamedTuple):
    """One worker's part of one step: `targets` are the characters that follow `inputs`.

    Attributes:
        inputs: (streams of this worker, seq_len) tokens.
        targets: (streams of this worker, seq_len) tokens.
    """

    inputs: np.ndarray
    targets: np.ndarray

    @classmethod
    def of(cls, runs: np.ndarray) -> "Window":
        """Of rows of T + 1 tokens: T inputs, and the T that follow one later."""
        return cls(runs[:, :-1], runs[:, 1:])


def shard(streams: int, rank: int, size: int) -> slice:
    """The contiguous run of rows that worker `rank` of `size` owns; sizes differ by at most one.

    Raises:
        UserError: when there are more workers than streams, so that one would have nothing to do.
    """
    if size > streams:
        raise UserError(
            f"--global-batch-size {streams}: fewer streams than the {size} workers; give each worker at least one, "
            f"for example --global-batch-size {size}"
        )
    return slice(streams * rank // size, streams * (rank + 1) // size)


class ConsecutiveBatches:
    """The document's `data_iter_consecutive`, sharded: each row walks along one stream and state may be carried.

    Attributes:
        rows: this worker's streams among all.
        steps_per_epoch: the same for every worker.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, rank: int = 0, size: int = 1) -> None:
        self.rows = shard(streams, rank, size)
        _require(tokens, streams * (seq_len + 1), streams, seq_len)
        length = len(tokens) // streams
        self.seq_len = seq_len
        self.steps_per_epoch = (length - 1) // seq_len
        self._tokens, self._starts = tokens, np.arange(streams)[self.rows] * length

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:  # noqa: ARG002 - one interface with RandomBatches
        """The windows of one epoch from number `start` on; they are the same in each epoch."""
        for step in range(start, self.steps_per_epoch):
            yield Window.of(runs(self._tokens, self._starts + step * self.seq_len, self.seq_len + 1))


class RandomBatches:
    """The document's `data_iter_random`, sharded: one permutation of the examples an epoch, the same on every rank.

    Attributes:
        rows: this worker's streams among all.
        steps_per_epoch: the same for every worker.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, rank: int = 0, size: int = 1, seed: int = 0) -> None:
        self.rows = shard(streams, rank, size)
        _require(tokens, streams * seq_len + 1, streams, seq_len)
        self._examples = (len(tokens) - 1) // seq_len
        self.steps_per_epoch = self._examples // streams
        self._tokens, self._streams, self._seq_len, self._seed = tokens, streams, seq_len, seed

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The windows of one epoch from number `start` on, in the order that (seed, epoch) gives."""
        order = np.arange(self._examples, dtype=np.int32)  # half of what permutation() takes, in the same order
        generator(self._seed, Purpose.SHUFFLE, epoch).shuffle(order)
        for step in range(start, self.steps_per_epoch):
            rows = order[step * self._streams : (step + 1) * self._streams][self.rows]
            yield Window.of(runs(self._tokens, rows.astype(np.int64) * self._seq_len, self._seq_len + 1))


def _require(tokens: Tokens, needed: int, streams: int, seq_len: int) -> None:
    if len(tokens) < needed:
        raise UserError(
            f"--corpus: {len(tokens):,} characters are too few for one window of {seq_len} in each of {streams} "
            f"streams, {needed:,} are needed: give a longer text, raise --max-chars, or lower --seq-len or "
            "--global-batch-size",
            ExitStatus.BAD_DATA,
        )
