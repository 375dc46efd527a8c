"""Learning rate schedules: the rate of every step."""

import pytest

from lstm_dist.train.lr_schedule import LearningRate


@pytest.mark.parametrize(
    ("rate", "expected"),
    [
        (LearningRate(0.5), [0.5, 0.5, 0.5]),
        (LearningRate(0.5, warm_up=4), [0.125, 0.25, 0.375, 0.5, 0.5]),
        (LearningRate(8.0, "step", every=2, factor=0.5), [8, 8, 4, 4, 2, 2, 1]),
        (LearningRate(8.0, "step", 2, every=2, factor=0.5), [4, 8, 8, 8, 4, 4, 2]),
        (LearningRate(1.0, "cosine", every=4, factor=0.0), [1, 0.853553, 0.5, 0.146447, 0, 0]),
        (LearningRate(1.0, "cosine", 1, every=2, factor=0.1), [1, 1, 0.55, 0.1, 0.1]),
    ],
)
def test_learning_rate_of_every_step(rate: LearningRate, expected: list):
    assert [rate.at(step) for step in range(len(expected))] == pytest.approx(expected, abs=1e-6)
