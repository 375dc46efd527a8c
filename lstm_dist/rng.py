"""Random numbers that depend only on the seed and their purpose, not on the rank or on earlier draws."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """The purpose of a random stream. Seeded results depend on the values: append, never renumber."""

    INITIAL_WEIGHTS = 0
    SHUFFLE = 1
    SAMPLE = 2


def generator(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """Return the generator of (seed, purpose, counters), which is the same on every rank and in every process.

    Philox is counter-based (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), so the order of
    epoch 7 can be drawn without that of epoch 6.
    """
    key = np.random.SeedSequence(seed, spawn_key=(int(purpose), *counters))
    return np.random.Generator(np.random.Philox(key))
