"""The sizes of one benchmark case, and its text and weights."""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.batching import ConsecutiveBatches, Window

_WINDOWS = 4  # number of windows before the text repeats


class Case(NamedTuple):
    """The sizes of the whole job, and its workers and threads."""

    streams: int = 32
    seq_len: int = 35
    hidden_size: int = 256
    vocab_size: int = 1465
    workers: int = 1
    threads: int = 1

    @property
    def chars_per_step(self) -> int:
        """Characters per step of all workers together."""
        return self.streams * self.seq_len

    @property
    def task(self) -> "Case":
        """The same case with one worker and thread; equal tasks have equal loss and gradients."""
        return self._replace(workers=1, threads=1)

    def windows(self, rank: int) -> Iterator[Window]:
        """Yield a worker's part of consecutive windows of one seeded random text, endlessly."""
        characters = self.streams * (_WINDOWS * self.seq_len + 1)
        tokens = np.random.default_rng(0).integers(0, self.vocab_size, characters).astype(np.int32)
        batches = ConsecutiveBatches(tokens, self.streams, self.seq_len, rank, self.workers)
        while True:
            yield from batches.epoch(1)
