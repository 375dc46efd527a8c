"""Estimates of repeated measurements, with 95 % confidence intervals."""

import math
from typing import NamedTuple, Sequence

import numpy as np
from scipy import stats

from lstm_dist.experiments.fitting import positive


class Estimate(NamedTuple):
    """A value, above 0, and its 95 % confidence interval: nan, nan where a single measurement gives none."""

    value: float
    low: float
    high: float

    def __truediv__(self, divisor: float) -> "Estimate":
        return Estimate(self.value / divisor, self.low / divisor, self.high / divisor)


UNKNOWN = Estimate(math.nan, math.nan, math.nan)  # where nothing was measured


def mean(values: Sequence[float]) -> Estimate:
    """Geometric mean: Student's t on the logarithms, for times and rates scatter by factors.

    Raises:
        ValueError: when there is no value, or one that is nan, infinite or not above 0.
    """
    logs = _logarithms(values)
    return _estimate(logs.mean, logs)


def ratio(above: Sequence[float], below: Sequence[float]) -> Estimate:
    """Ratio of geometric means of independent measurements: Welch's t on the logarithms.

    One object as both is the reference compared with itself: exactly 1, without a width.

    Raises:
        ValueError: when either has no value, or one that is nan, infinite or not above 0.
    """
    if above is below:
        return mean(above)._replace(value=1.0, low=1.0, high=1.0)
    one, other = _logarithms(above), _logarithms(below)
    return _estimate(one.mean - other.mean, one, other)


class _Logarithms(NamedTuple):
    """Their mean, the squared standard error of it (nan for a single one), and its degrees of freedom."""

    mean: float
    variance: float
    freedom: int


def _logarithms(values: Sequence[float]) -> _Logarithms:
    logs = np.log(positive(values))
    if logs.size == 1:
        return _Logarithms(logs.item(), math.nan, 1)
    return _Logarithms(float(logs.mean()), float(logs.var(ddof=1)) / logs.size, logs.size - 1)


def _estimate(center: float, *parts: _Logarithms) -> Estimate:
    """exp(center), whose error is that of the parts; one part alone keeps its own degrees of freedom."""
    variance = sum(part.variance for part in parts)
    width = 0.0  # of equal values
    if variance != 0:
        freedom = variance**2 / sum(part.variance**2 / part.freedom for part in parts)  # Welch 1947, Satterthwaite 1946
        width = stats.t.ppf(0.975, freedom) * math.sqrt(variance)
    return Estimate(math.exp(center), math.exp(center - width), math.exp(center + width))
