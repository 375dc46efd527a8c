"""The sizes of one measurement, and the text and weights that follow from them."""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.batching import ConsecutiveBatches, Window

_WINDOWS = 4  # in the text, before it starts again


class Case(NamedTuple):
    """The sizes of the whole job, and on what it runs."""

    streams: int = 32
    seq_len: int = 35
    hidden_size: int = 256
    vocab_size: int = 1465
    workers: int = 1
    threads: int = 1

    @property
    def chars_per_step(self) -> int:
        """Characters that all workers together train on in a step."""
        return self.streams * self.seq_len

    @property
    def task(self) -> "Case":
        """The same on one worker and thread: what has the same loss and gradients."""
        return self._replace(workers=1, threads=1)

    def windows(self, rank: int) -> Iterator[Window]:
        """A worker's part of consecutive windows of one seeded random text, without an end."""
        characters = self.streams * (_WINDOWS * self.seq_len + 1)
        tokens = np.random.default_rng(0).integers(0, self.vocab_size, characters).astype(np.int32)
        batches = ConsecutiveBatches(tokens, self.streams, self.seq_len, rank, self.workers)
        while True:
            yield from batches.epoch(1)
