"""Fit laws of speedup to measurements with several workers.

Speedup is throughput(N) / throughput(1), and hardware efficiency speedup / N: `ratio(many, one) / N`. Statistical
efficiency at batch B is `ratio(chars at the smallest batch, chars at B)`, with the characters needed for a perplexity.
"""

import math
from typing import Mapping, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.fitting import fit_costs, require_positive


class Law(NamedTuple):
    """A fitted law of speedup: what keeps N workers from being N times as fast as one.

    Attributes:
        name: of the law.
        contention: sigma, the serial fraction of the work; above 1 if two workers are slower than one.
        coherency: kappa, the cost per pair of workers; 0 in Amdahl's law.
        residuals: measured / fitted - 1, one per point.
    """

    name: str
    contention: float
    coherency: float
    residuals: Tuple[float, ...] = ()

    def speedup(self, workers: float) -> float:
        """Return N / (1 + sigma (N - 1) + kappa N (N - 1)) (Gunther 2007)."""
        return workers / (1 + self.contention * (workers - 1) + self.coherency * workers * (workers - 1))

    @property
    def peak(self) -> float:
        """Return the N >= 1 with the largest speedup: sqrt((1 - sigma) / kappa), and inf in Amdahl's law."""
        if self.contention >= 1:
            return 1.0
        return max(1.0, math.sqrt((1 - self.contention) / self.coherency)) if self.coherency else math.inf

    @property
    def limit(self) -> float:
        """Return the upper bound of the speedup: its value at the peak, 1 / sigma in Amdahl's law, inf without loss."""
        if math.isfinite(self.peak):
            return self.speedup(self.peak)
        return 1 / self.contention if self.contention else math.inf


def fit_amdahl(workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Fit Amdahl's law (1967) by least squares of the relative errors; speedups above N count as no contention.

    Args:
        workers: N of each point; points with N = 1 satisfy every law and do not affect the fit.
        speedups: relative to one worker.

    Raises:
        ValueError: without a point with N > 1, or if a number is invalid.
    """
    return _fit("Amdahl", {"contention": [n - 1 for n in workers]}, workers, speedups)


def fit_usl(workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Fit Gunther's universal scalability law (2007) in the same way.

    Raises:
        ValueError: without points at two different N > 1, or if a number is invalid.
    """
    columns = {"contention": [n - 1 for n in workers], "coherency": [n * (n - 1) for n in workers]}
    return _fit("USL", columns, workers, speedups)


def _fit(name: str, columns: Mapping[str, Sequence[float]], workers: Sequence[int], speedups: Sequence[float]) -> Law:
    """Fit N / speedup = 1 + sigma (N - 1) + kappa N (N - 1), which is linear in sigma and kappa."""
    several, measured = require_positive([workers, speedups])
    costs = fit_costs(columns, several / measured, base=1.0)
    law = Law(name, costs["contention"], costs.get("coherency", 0.0))
    return law._replace(residuals=tuple(s / law.speedup(n) - 1 for n, s in zip(workers, speedups)))
