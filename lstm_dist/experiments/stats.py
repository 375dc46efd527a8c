"""Estimates from repeated measurements, with 95 % confidence intervals."""

import math
from typing import NamedTuple, Sequence, Tuple

import numpy as np
from scipy import stats

from lstm_dist.experiments.fitting import require_positive


class Estimate(NamedTuple):
    """A positive value and its 95 % confidence interval; the bounds are nan for a single measurement.

    Attributes:
        repeats: the measurements; of a ratio, those above, each divided by the mean of those below.
    """

    value: float
    low: float
    high: float
    repeats: Tuple[float, ...] = ()

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate of a multiple."""
        value, low, high, *repeats = (factor * number for number in (self.value, self.low, self.high, *self.repeats))
        return Estimate(value, low, high, tuple(repeats))


UNKNOWN = Estimate(math.nan, math.nan, math.nan)  # for quantities that were not measured


def mean(values: Sequence[float]) -> Estimate:
    """Return the geometric mean with a Student's t interval on the logarithms, as times and rates scatter by factors.

    Raises:
        ValueError: if `values` is empty or has a value that is nan, infinite or not above 0.
    """
    logs = _logarithms(values)
    return _estimate(logs.mean, logs)._replace(repeats=tuple(values))


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Return the ratio of geometric means of independent measurements, with Welch's t interval on the logarithms.

    If both are the same object, the reference is compared with itself: the ratio is exactly 1, with zero width.

    Raises:
        ValueError: if either is empty or has a value that is nan, infinite or not above 0.
    """
    if above is below:
        return mean(above)._replace(value=1.0, low=1.0, high=1.0, repeats=())
    one, other = _logarithms(above), _logarithms(below)
    repeats = tuple(value / math.exp(other.mean) for value in above)
    return _estimate(one.mean - other.mean, one, other)._replace(repeats=repeats)


class _Logarithms(NamedTuple):
    """Mean of logarithms, its squared standard error (nan for a single value) and its degrees of freedom."""

    mean: float
    variance: float
    freedom: int


def _logarithms(values: Sequence[float]) -> _Logarithms:
    logs = np.log(require_positive(values))
    if logs.size == 1:
        return _Logarithms(logs.item(), math.nan, 1)
    return _Logarithms(float(logs.mean()), float(logs.var(ddof=1)) / logs.size, logs.size - 1)


def _estimate(center: float, *parts: _Logarithms) -> Estimate:
    """Return exp(center) with the combined error of `parts`; a single part keeps its own degrees of freedom."""
    variance = sum(part.variance for part in parts)
    width = 0.0  # if all values are equal
    if variance != 0:
        freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)  # Welch 1947, Satterthwaite 1946
        width = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    return Estimate(math.exp(center), math.exp(center - width), math.exp(center + width))
