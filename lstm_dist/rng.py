"""Random numbers that depend on the seed and on what they are for, never on a rank or on what was drawn before."""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What a stream of random numbers is for. The values are part of every seeded result: append, never renumber."""

    INITIAL_WEIGHTS = 0
    SHUFFLE = 1
    SAMPLE = 2


def generator(seed: int, purpose: Purpose, *counters: int) -> np.random.Generator:
    """The counter-based generator of one (seed, purpose, counters): the same on every rank and in every process.

    Philox is keyed, not advanced (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", 2011), so the order of
    epoch 7 needs no epoch 6.
    """
    key = np.random.SeedSequence(seed, spawn_key=(int(purpose), *counters))
    return np.random.Generator(np.random.Philox(key))
