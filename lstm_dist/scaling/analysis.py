"""Compute all numbers of a report from an experiment's rows; its text and pictures use only these."""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling import bottlenecks, forecast, link_fits, step_breakdown, throughput, time_to_perplexity
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Point, Rows


class Mode(NamedTuple):
    """Weak or strong scaling; the lists are ordered by number of workers.

    Attributes:
        name: "weak" or "strong".
        steps: predicted and measured; without numbers of workers whose steps were not sampled.
    """

    name: str
    throughputs: List[throughput.Throughput]
    laws: throughput.Laws
    splits: List[step_breakdown.TimeSplit]
    shares: List[bottlenecks.Shares]
    steps: List[forecast.Step]
    forecast: Optional[forecast.Forecast]


class Findings(NamedTuple):
    """All findings.

    Attributes:
        modes: modes with measurements.
        wires: one per path.
        wire: the path that the training jobs used, if it has a link.
        reaches: time to perplexity, one per batch and number of workers.
    """

    rows: Rows
    modes: List[Mode]
    wires: List[link_fits.Wire]
    wire: Optional[link_fits.Wire]
    reaches: List[time_to_perplexity.Reach]

    def failed(self, *modes: str) -> List[Point]:
        """Return the failed training jobs of these modes."""
        return [point for point in self.rows.points if point.mode in modes and point.state == "failed"]

    @property
    def oversubscribed(self) -> List[int]:
        """Numbers of workers that were oversubscribed."""
        groups = [reached.group for mode in self.modes for reached in mode.throughputs]
        return sorted({group.workers for group in groups if group.oversubscribed})


def find(rows: Rows) -> Findings:
    """Compute all findings."""
    wires = link_fits.wires(rows)
    own = link_fits.of_job(wires, rows.experiment.launcher)
    modes = [_mode(rows, name, own) for name in MODES if rows.finished(name)]
    return Findings(rows, modes, wires, own, time_to_perplexity.reaches(rows))


def _mode(rows: Rows, name: str, own: Optional[link_fits.Wire]) -> Mode:
    reached = throughput.throughputs(rows, name)
    splits = step_breakdown.time_splits([one.group for one in reached])
    return Mode(
        name,
        reached,
        throughput.laws(name, reached),
        splits,
        bottlenecks.shares(splits, own),
        forecast.steps(reached, splits, own),
        forecast.forecast(reached, splits, own),
    )
