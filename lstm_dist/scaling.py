"""What measurements with several workers say: estimates with their intervals, and laws of speedup.

Speedup is throughput(N) / throughput(1), and hardware efficiency speedup / N: `ratio(many, one) / N`. Statistical
efficiency at batch B is `ratio(chars at the smallest batch, chars at B)`, chars being what a perplexity took.
"""

import math
from typing import Mapping, NamedTuple, Sequence, Tuple

import numpy as np
from scipy import stats

from lstm_dist.fitting import fit_costs, positive


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


class Law(NamedTuple):
    """A fitted law of speedup: what keeps N workers from being N times as fast as one.

    Attributes:
        name: of the law.
        contention: sigma, the part of the work that they do one at a time; above 1 where two are slower than one.
        coherency: kappa, what each pair costs; 0 in Amdahl's law.
        residuals: measured / fitted - 1, one a point.
    """

    name: str
    contention: float
    coherency: float
    residuals: Tuple[float, ...] = ()

    def speedup(self, workers: float) -> float:
        """N / (1 + sigma (N - 1) + kappa N (N - 1)) (Gunther 2007)."""
        return workers / (1 + self.contention * (workers - 1) + self.coherency * workers * (workers - 1))

    @property
    def peak(self) -> float:
        """The N, at least 1, of the largest speedup: sqrt((1 - sigma) / kappa), and inf in Amdahl's law."""
        if self.contention >= 1:
            return 1.0
        return max(1.0, math.sqrt((1 - self.contention) / self.coherency)) if self.coherency else math.inf

    @property
    def limit(self) -> float:
        """The speedup that no N exceeds: that of the peak, or 1 / sigma in Amdahl's law; inf where nothing is lost."""
        if math.isfinite(self.peak):
            return self.speedup(self.peak)
        return 1 / self.contention if self.contention else math.inf


def fit_amdahl(workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Amdahl's law (1967), by least squares of the relative errors; speedups above N count as no contention.

    Args:
        workers: N of each point; a point of one worker is true of every law and decides nothing.
        speedups: over one worker.

    Raises:
        ValueError: without a point of several workers, or when a number is unusable.
    """
    return _fit("Amdahl", {"contention": [n - 1 for n in workers]}, workers, speedups)


def fit_usl(workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Gunther's universal scalability law (2007), fitted the same way.

    Raises:
        ValueError: without two different numbers of several workers, or when a number is unusable.
    """
    columns = {"contention": [n - 1 for n in workers], "coherency": [n * (n - 1) for n in workers]}
    return _fit("USL", columns, workers, speedups)


def _fit(name: str, columns: Mapping[str, Sequence[float]], workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Fit N / speedup = 1 + sigma (N - 1) + kappa N (N - 1), which is linear in sigma and kappa."""
    several, measured = positive([workers, speedups])
    costs = fit_costs(columns, several / measured, base=1.0)
    law = Law(name, costs["contention"], costs.get("coherency", 0.0))
    return law._replace(residuals=tuple(s / law.speedup(n) - 1 for n, s in zip(workers, speedups)))
