"""Predict the step time from compute and link, for measured and for larger numbers of workers.

All workers wait for the slowest one, then communicate [Valiant 1990, bulk-synchronous steps]:

    seconds(N) = data + compute of the slowest + update + link(N, bytes)
"""

from typing import List, Mapping, NamedTuple, Optional

from lstm_dist.scaling.host_links import HostLinks
from lstm_dist.scaling.link_fits import LinkFit
from lstm_dist.scaling.prediction import WORKERS, Prediction, fit_compute, predict_strong, predict_weak
from lstm_dist.scaling.step_breakdown import StepBreakdown
from lstm_dist.scaling.throughput import JobGroup, Throughput


class StepComparison(NamedTuple):
    """The predicted step of a group, with the compute of its slowest worker, and the measured seconds."""

    group: JobGroup
    predicted: Prediction
    measured: float

    @property
    def error(self) -> float:
        """Return the relative error of the prediction: predicted / measured - 1."""
        return self.predicted.step / self.measured - 1


class ForecastPoint(NamedTuple):
    """A predicted step, in seconds: the middle, and the edges of the band that Forecast defines.

    Attributes:
        bytes: that each worker sends.
    """

    workers: int
    bytes: int
    low: float
    middle: float
    high: float


class Forecast(NamedTuple):
    """Steps of more workers than were measured.

    The lower edge assumes that the cost of a call besides its bytes is independent of N (but not of whether the workers
    are on one host), the upper edge that it is a cost per message, and so grows with N. Under weak scaling, the lower
    edge also assumes the compute time of the baseline's workers (of a single one: on an otherwise idle machine); the
    others use that of the measured N.

    Attributes:
        series: name of the series of jobs; empty for the only one.
        max_measured: largest measured N that was not oversubscribed.
        baseline: smallest measured N, to which the efficiency is relative.
        baseline_step: its measured seconds per step.
    """

    mode: str
    series: str
    max_measured: int
    baseline: int
    baseline_step: float
    points: List[ForecastPoint]

    def efficiency(self, workers: int, step: float) -> float:
        """Return the efficiency of `workers` workers with steps of `step` seconds."""
        return self.baseline_step / step * (self.baseline / workers if self.mode == "strong" else 1)


def compare_steps(
    throughputs: List[Throughput], breakdowns: List[StepBreakdown], fit: Optional[LinkFit]
) -> List[StepComparison]:
    """Return one entry per group with timed steps; without a link, only for one worker."""
    by_workers = {breakdown.group.workers: breakdown for breakdown in breakdowns}
    return [
        _compare_step(throughput, by_workers[throughput.group.workers], fit)
        for throughput in throughputs
        if throughput.group.workers in by_workers and (fit or throughput.group.workers == 1)
    ]


def _compare_step(throughput: Throughput, breakdown: StepBreakdown, fit: Optional[LinkFit]) -> StepComparison:
    group = throughput.group
    communication = fit.link.seconds(group.workers, group.bytes) if fit and fit.link else 0.0
    return StepComparison(group, Prediction(group.workers, own_seconds(breakdown), communication), throughput.step)


def own_seconds(breakdown: StepBreakdown) -> float:
    """Return the seconds of a step without communication, with the slowest worker's compute."""
    return breakdown.parts["data"].mean + breakdown.slowest_compute + breakdown.parts["update"].mean


def forecast_steps(
    throughputs: List[Throughput], breakdowns: List[StepBreakdown], fit: Optional[LinkFit], sent: Mapping[int, int]
) -> Optional[Forecast]:
    """Predict from groups that are not oversubscribed; None without two numbers of workers among them, or a link.

    Under weak scaling, `sent` is the bytes of each number of workers; more workers never send less than the measured
    ones. Under strong scaling the batch, and so the bytes, are those of the measured ones.
    """
    usable = [breakdown for breakdown in breakdowns if not breakdown.group.oversubscribed]
    if not (fit and fit.link and len(usable) > 1):
        return None
    last = usable[-1].group
    if last.mode == "strong" and len(set(map(_share, usable))) == 1:  # as with 30 and 31 workers for 32 streams
        return None
    sizes = {n: max(last.bytes, sent[n]) if last.mode == "weak" and n > last.workers else last.bytes for n in WORKERS}
    low_link, high_link = fit.link.bounds(max(fit.workers), last.bytes)
    low = _predict(usable[:1] if last.mode == "weak" else usable, low_link, sizes)
    middle, high = (_predict(usable, link, sizes) for link in (fit.link, high_link))
    points = [
        ForecastPoint(below.workers, sizes[below.workers], below.step, center.step, above.step)
        for below, center, above in zip(low, middle, high)
        if below.workers >= last.workers
    ]
    if len(points) < 2:
        return None
    first = throughputs[0]
    return Forecast(last.mode, last.series, last.workers, first.baseline, first.step, points)


def _share(breakdown: StepBreakdown) -> int:
    """Return the streams of the worker that has most of them."""
    return -(-breakdown.group.streams // breakdown.group.workers)


def _predict(breakdowns: List[StepBreakdown], link: HostLinks, sizes: Mapping[int, int]) -> List[Prediction]:
    """Predict from the last group's compute (weak), or a linear fit of compute over streams per worker (strong)."""
    own = [own_seconds(breakdown) for breakdown in breakdowns]
    if breakdowns[0].group.mode == "weak":
        return predict_weak(own[-1], sizes, link)
    compute = fit_compute([_share(breakdown) for breakdown in breakdowns], own)
    return predict_strong(breakdowns[0].group.streams, compute, sizes, link)
