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
take equally many. The tokens may stand in a file: only windows are looked at, a few rows at a time, and `forget` gives
back the memory of those before.
"""

from typing import Callable, Iterator, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.randomness import Purpose, generator

_FEW = 4  # rows: of a file that is mapped, every look may bring two megabytes into memory


class Window(NamedTuple):
    """One worker's part of one step: `targets` are the characters that follow `inputs`.

    Attributes:
        inputs: (streams of this worker, seq_len) tokens.
        targets: (streams of this worker, seq_len) tokens.
    """

    inputs: np.ndarray
    targets: np.ndarray


def window_of(table: np.ndarray, rows: np.ndarray, forget: Callable[[], None]) -> Window:
    """A copy of some rows of T + 1 tokens, taken a few at a time: T inputs, and the T that follow one later."""
    copy = np.empty((len(rows), table.shape[1]), table.dtype)
    for start in range(0, len(rows), _FEW):
        copy[start : start + _FEW] = table[rows[start : start + _FEW]]
        forget()
    return Window(copy[:, :-1], copy[:, 1:])


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

    def __init__(
        self,
        tokens: np.ndarray,
        streams: int,
        seq_len: int,
        rank: int = 0,
        size: int = 1,
        forget: Callable[[], None] = lambda: None,
    ) -> None:
        self.rows = shard(streams, rank, size)
        _require(tokens, streams * (seq_len + 1), streams, seq_len)
        length = len(tokens) // streams
        self.seq_len = seq_len
        self._forget = forget
        self.steps_per_epoch = (length - 1) // seq_len
        self._tokens = tokens[: streams * length].reshape(streams, length)[self.rows]

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:  # noqa: ARG002 - one interface with RandomBatches
        """The windows of one epoch from number `start` on; they are the same in each epoch."""
        everyone = np.arange(len(self._tokens))
        for step in range(start, self.steps_per_epoch):
            here = slice(step * self.seq_len, (step + 1) * self.seq_len + 1)
            yield window_of(self._tokens[:, here], everyone, self._forget)


class RandomBatches:
    """The document's `data_iter_random`, sharded: one permutation of the examples an epoch, the same on every rank.

    Attributes:
        rows: this worker's streams among all.
        steps_per_epoch: the same for every worker.
    """

    def __init__(
        self,
        tokens: np.ndarray,
        streams: int,
        seq_len: int,
        rank: int = 0,
        size: int = 1,
        forget: Callable[[], None] = lambda: None,
        seed: int = 0,
    ) -> None:
        self.rows = shard(streams, rank, size)
        _require(tokens, streams * seq_len + 1, streams, seq_len)
        examples = (len(tokens) - 1) // seq_len
        self.steps_per_epoch = examples // streams
        self._streams, self._forget = streams, forget
        self._seed = seed
        stride = tokens.strides[0]
        self._examples = as_strided(tokens, (examples, seq_len + 1), (seq_len * stride, stride), writeable=False)

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Window]:
        """The windows of one epoch from number `start` on, in the order that (seed, epoch) gives."""
        order = np.arange(len(self._examples), dtype=np.int32)  # half of what permutation() takes, in the same order
        generator(self._seed, Purpose.SHUFFLE, epoch).shuffle(order)
        for step in range(start, self.steps_per_epoch):
            rows = order[step * self._streams : (step + 1) * self._streams][self.rows]
            yield window_of(self._examples, rows, self._forget)


def _require(tokens: np.ndarray, needed: int, streams: int, seq_len: int) -> None:
    if len(tokens) < needed:
        raise UserError(
            f"--corpus: {len(tokens):,} characters are too few for one window of {seq_len} in each of {streams} "
            f"streams, {needed:,} are needed: give a longer text, raise --max-chars, or lower --seq-len or "
            "--global-batch-size",
            ExitStatus.BAD_DATA,
        )
