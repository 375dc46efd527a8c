"""The axis of the picture of step times: it shows what most steps take, whatever the slowest one does."""

import pytest

from lstm_dist.scaling.distribution_figure import axis_limits
from lstm_dist.scaling.step_distribution import Distribution


def distribution(slowest: float, percentile_95: float = 1.04) -> Distribution:
    return Distribution(40, 0.95, 0.98, 1.0, 1.02, percentile_95, float("nan"), slowest)


@pytest.mark.parametrize(
    ("slowest", "right"),
    [(1.05, 110), (1.3, 132), (50.0, 1.5 * 104)],
    ids=["equal steps look equal", "the slowest step is inside", "an outlier is cut"],
)
def test_the_axis_follows_most_steps(slowest: float, right: float):
    assert axis_limits([distribution(1.05), distribution(slowest)]) == pytest.approx((90, right))


def test_the_upper_quartile_stands_for_a_percentile_of_too_few_steps():
    assert axis_limits([distribution(50.0, float("nan"))]) == pytest.approx((90, 1.5 * 102))


def test_times_are_relative_to_the_median_of_each_number_of_workers():
    fast, slow = distribution(1.3), Distribution(40, *(9 * time for time in distribution(1.3)[1:]))
    assert axis_limits([fast, slow]) == pytest.approx(axis_limits([fast]))
