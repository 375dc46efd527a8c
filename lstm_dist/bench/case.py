"""The sizes of one benchmark case, and its text."""

from typing import Iterator, NamedTuple

import numpy as np

from lstm_dist.data.batching import ConsecutiveBatches, Window
from lstm_dist.train.exchange_plan import ExchangePlan

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

    @property
    def exchange(self) -> ExchangePlan:
        """Return what this project's workers exchange in a step."""
        sizes = self.workers, self.streams, self.seq_len, self.vocab_size, self.hidden_size
        return ExchangePlan.choose(self._tokens(), *sizes, layers=1)

    def windows(self, rank: int) -> Iterator[Window]:
        """Yield a worker's shard of the consecutive windows of a random text with a fixed seed, endlessly."""
        batches = ConsecutiveBatches(
            self._tokens(), self.streams, self.seq_len, rank, self.workers, self.exchange.batch_vocab_size
        )
        while True:
            yield from batches.epoch(1)

    def _tokens(self) -> np.ndarray:
        """Return random characters with frequencies as in a text: character k has a frequency of 1 / k (Zipf 1949).

        Of 1,465 characters, a batch of 32 x 35 has about 400, as of the packaged songs.
        """
        frequencies = 1 / np.arange(1, self.vocab_size + 1)
        drawn = np.random.default_rng(0).choice(
            self.vocab_size, self.streams * (_WINDOWS * self.seq_len + 1), p=frequencies / frequencies.sum()
        )
        return drawn.astype(np.int32)
