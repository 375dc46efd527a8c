"""What measurements with several workers say: estimates with their intervals, and laws of speedup.

Speedup is throughput(N) / throughput(1), and hardware efficiency speedup / N: `ratio(many, one) / N`. Statistical
efficiency at batch B is `ratio(chars at the smallest batch, chars at B)`, chars being what a perplexity took.
"""

import math
from typing import Mapping, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.fitting import fit_costs, positive


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
