"""A training run of a few steps on random tokens."""

import numpy as np

from lstm_dist.train.interval import Interval, Intervals
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.step import Schedule

V, H, B, T = 9, 4, 3, 5

TOKENS = np.random.default_rng(0).integers(0, V, B * (T * 4 + 1)).astype(np.int32)


def schedule(**changes):
    numbers = {
        "epochs": 2, "learning_rate": LearningRate(0.01), "max_norm": 5.0, "gradient_scale": 1.0,
        "resets_every_window": False, "chars_per_step": B * T, "wire_dtype": "float32",
        "every": Intervals(log=Interval(epochs=2), evaluation=Interval(epochs=1)),
    }  # fmt: skip
    return Schedule(**{**numbers, **changes})
