"""Fit laws of speedup to measurements with several workers.

The baseline is the smallest number of workers measured, N0. Speedup is N0 throughput(N) / throughput(N0), which is N if
nothing is lost, and hardware efficiency is speedup / N. A law gives the speedup over one worker as N / D(N), with
D(N) = 1 + sigma (N - 1) + kappa N (N - 1). That over N0 workers is then N D(N0) / D(N), so

    N / speedup(N) = D(N) / D(N0) = 1 + s (N - N0) + k (N (N - 1) - N0 (N0 - 1)),  s = sigma / D(N0), k = kappa / D(N0)

This is linear in s and k, and 1 / D(N0) = 1 - s (N0 - 1) - k N0 (N0 - 1) gives sigma and kappa, although one worker was
not measured.

Statistical efficiency at batch B is `ratio(chars at the smallest batch, chars at B)`, with the characters needed for a
perplexity.
"""

import math
from typing import Callable, Mapping, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.fitting import fit_costs, require_positive


class Law(NamedTuple):
    """A fitted law of speedup: what keeps N workers from being N times as fast as one.

    Attributes:
        name: of the law.
        contention: sigma, the serial fraction of the work; above 1 if two workers are slower than one.
        coherency: kappa, the cost per pair of workers; 0 in Amdahl's law.
        baseline: N0, the number of workers whose speedup is N0.
        residuals: measured / fitted - 1, one per point.
    """

    name: str
    contention: float
    coherency: float
    baseline: int = 1
    residuals: Tuple[float, ...] = ()

    def speedup(self, workers: float) -> float:
        """Return N D(N0) / D(N), with D(N) = 1 + sigma (N - 1) + kappa N (N - 1) (Gunther 2007)."""
        return workers * self._slowdown(self.baseline) / self._slowdown(workers)

    def _slowdown(self, workers: float) -> float:
        return 1 + self.contention * (workers - 1) + self.coherency * workers * (workers - 1)

    @property
    def peak(self) -> float:
        """Return the N >= 1 with the largest speedup: sqrt((1 - sigma) / kappa), and inf in Amdahl's law."""
        if self.contention >= 1:
            return 1.0
        return max(1.0, math.sqrt((1 - self.contention) / self.coherency)) if self.coherency else math.inf

    @property
    def limit(self) -> float:
        """Return the upper bound of the speedup: that at the peak, D(N0) / sigma in Amdahl's law, inf without loss."""
        if math.isfinite(self.peak):
            return self.speedup(self.peak)
        return self._slowdown(self.baseline) / self.contention if self.contention else math.inf


def fit_amdahl(workers: Sequence[int], speedups: Sequence[float], baseline: int = 1) -> Law:
    """Fit Amdahl's law (1967) by least squares of the relative errors; speedups above N count as no contention.

    Args:
        workers: N of each point; points of the baseline satisfy every law and do not affect the fit.
        speedups: relative to the baseline, times N0.
        baseline: N0.

    Raises:
        ValueError: without a point other than the baseline, if a number is invalid, or if throughput falls
            so fast that the law would give one worker a negative time.
    """
    return _fit("Amdahl", {"contention": _contention}, workers, speedups, baseline)


def fit_usl(workers: Sequence[int], speedups: Sequence[float], baseline: int = 1) -> Law:
    """Fit Gunther's universal scalability law (2007) in the same way.

    Raises:
        ValueError: without points at two different N other than the baseline, or as in `fit_amdahl`.
    """
    return _fit("USL", {"contention": _contention, "coherency": _coherency}, workers, speedups, baseline)


def _contention(workers: int) -> int:
    return workers - 1


def _coherency(workers: int) -> int:
    return workers * (workers - 1)


def _fit(
    name: str,
    terms: Mapping[str, Callable[[int], int]],
    workers: Sequence[int],
    speedups: Sequence[float],
    baseline: int,
) -> Law:
    """Fit N / speedup = 1 + the sum of cost (term(N) - term(N0)), and scale the costs to those of one worker."""
    several, measured = require_positive([workers, speedups])
    columns = {cost: [term(n) - term(baseline) for n in workers] for cost, term in terms.items()}
    costs = fit_costs(columns, several / measured, base=1.0)
    work = 1 - sum(costs[cost] * term(baseline) for cost, term in terms.items())  # 1 / D(N0)
    if work <= 0:
        raise ValueError(f"{name}: beyond {baseline} workers, throughput falls faster than the law allows")
    law = Law(name, costs["contention"] / work, costs.get("coherency", 0.0) / work, baseline)
    return law._replace(residuals=tuple(s / law.speedup(n) - 1 for n, s in zip(workers, speedups)))
