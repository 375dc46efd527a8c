"""Attribute the time of a step to useful compute and to losses."""

from math import isnan, nan
from typing import List, NamedTuple, Optional

from lstm_dist.scaling.link_fits import LinkFit
from lstm_dist.scaling.step_breakdown import StepBreakdown


class LossShares(NamedTuple):
    """Fractions of a timed step, which sum to 1.

    Attributes:
        useful: compute that a worker of the baseline needs for the same number of streams.
        extra_compute: additional compute, due to shared memory and cores or to work that does not shrink with the
            streams.
        wait: waiting for the slowest worker.
        latency, bandwidth: parts of the communication according to the fitted link; nan without a link.
        communication: the sum of both.
        other: cutting the window, clipping and updating.
    """

    breakdown: StepBreakdown
    useful: float
    extra_compute: float
    wait: float
    latency: float
    bandwidth: float
    communication: float
    other: float

    def losses(self) -> "List[tuple[str, float]]":
        """Return the names and shares of all but `useful`, largest first."""
        communication = ["communication"] if isnan(self.latency) else ["latency", "bandwidth"]
        names = ["extra_compute", "wait", *communication, "other"]
        return sorted(((name, getattr(self, name)) for name in names), key=lambda loss: -loss[1])


def loss_shares(breakdowns: List[StepBreakdown], fit: Optional[LinkFit]) -> List[LossShares]:
    """Return one entry per group, relative to the smallest number of workers that was profiled."""
    return [_loss_shares(breakdown, breakdowns[0], fit) for breakdown in breakdowns]


def _loss_shares(breakdown: StepBreakdown, baseline: StepBreakdown, fit: Optional[LinkFit]) -> LossShares:
    parts, group, total = breakdown.parts, breakdown.group, breakdown.total
    compute, share = parts["compute"].mean, group.streams / group.workers
    useful = min(baseline.parts["compute"].mean * share * baseline.group.workers / baseline.group.streams, compute)
    communication, bandwidth = parts["wire"].mean / total, nan
    if group.workers == 1:
        bandwidth = 0.0
    elif fit and fit.link:
        links = fit.link.without_latency, fit.link
        only_bytes, complete = (link.seconds(group.workers, group.bytes) for link in links)
        bandwidth = communication * only_bytes / complete
    return LossShares(
        breakdown,
        useful=useful / total,
        extra_compute=(compute - useful) / total,
        wait=parts["wait"].mean / total,
        latency=communication - bandwidth,
        bandwidth=bandwidth,
        communication=communication,
        other=(parts["data"].mean + parts["update"].mean) / total,
    )
