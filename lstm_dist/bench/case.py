"""The sizes of one benchmark case, and its text."""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.batching import ConsecutiveBatches, Window

_WINDOWS = 4  # number of windows before the text repeats


class Case(NamedTuple):
    """The sizes of a job: streams and model of all workers together, number of workers, OpenMP threads per worker."""

    streams: int = 32
    seq_len: int = 35
    hidden_size: int = 256
    vocab_size: int = 1465
    workers: int = 1
    threads: int = 1

    @property
    def chars_per_step(self) -> int:
        """Return the characters per step of all workers together."""
        return self.streams * self.seq_len

    @property
    def on_one_worker(self) -> "Case":
        """Return the same case with one worker and one thread, which has the same loss and gradients."""
        return self._replace(workers=1, threads=1)

    def windows(self, rank: int) -> Iterator[Window]:
        """Yield a worker's shard of the consecutive windows of a random text with a fixed seed, endlessly."""
        characters = self.streams * (_WINDOWS * self.seq_len + 1)
        tokens = np.random.default_rng(0).integers(0, self.vocab_size, characters).astype(np.int32)
        batches = ConsecutiveBatches(tokens, self.streams, self.seq_len, rank, self.workers)
        while True:
            yield from batches.epoch(1)
