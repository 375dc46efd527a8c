"""Compare two scaling experiments point by point: the ratio of their throughputs, and of the parts of their steps."""

from math import isfinite
from typing import Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.experiments.report.formatters import counted
from lstm_dist.experiments.stats import Estimate, mean, ratio
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Rows
from lstm_dist.scaling.series import factor_settings, split_series, varying
from lstm_dist.scaling.step_breakdown import StepBreakdown, step_breakdowns
from lstm_dist.scaling.throughput import JobGroup, job_groups
from lstm_dist.scaling.variation import Variation, describe

FASTER, SLOWER, SAME, UNKNOWN = "faster", "slower", "no difference", "undecided"


class PointComparison(NamedTuple):
    """One point of both experiments; every pair is (first experiment, second experiment).

    Attributes:
        groups: the finished jobs.
        rates: characters per second of all workers together.
        ratio: rate of the second experiment over that of the first, with Welch's 95 % interval.
        breakdowns: the parts of a step; empty unless both experiments have timed steps.
    """

    groups: Tuple[JobGroup, JobGroup]
    rates: Tuple[Estimate, Estimate]
    ratio: Estimate
    breakdowns: Tuple[StepBreakdown, ...]

    @property
    def verdict(self) -> str:
        """Say how the second experiment compares: a difference counts if the interval of the ratio excludes 1."""
        if not isfinite(self.ratio.low + self.ratio.high):
            return UNKNOWN
        if self.ratio.low > 1:
            return FASTER
        return SLOWER if self.ratio.high < 1 else SAME

    @property
    def oversubscribed(self) -> bool:
        """Return whether one of the experiments had more threads than cores, or workers than GPUs."""
        return any(group.oversubscribed for group in self.groups)


class Comparison(NamedTuple):
    """All points that two experiments have in common, and the names of those that only one of them has."""

    points: List[PointComparison]
    only: Tuple[List[str], List[str]]


def compare_points(first: Rows, second: Rows) -> Comparison:
    """Compare the weak and strong points of the same number of workers and streams.

    Series are matched by the factors that vary within one of the experiments, so that two experiments with a single
    series each are compared even if these differ, for example, in the number of threads.
    """
    series = split_series(first), split_series(second)
    settings = [[factor_settings(rows.experiment) for rows in side] for side in series]
    factors = [factor for factor in Variation.model_fields if any(factor in varying(side) for side in settings)]
    groups = _groups(series[0], factors), _groups(series[1], factors)
    common = [key for key in groups[1] if key in groups[0]]
    only = tuple([_name(group) for key, group in groups[k].items() if key not in groups[1 - k]] for k in (0, 1))
    return Comparison([_compare(groups[0][key], groups[1][key]) for key in common], (only[0], only[1]))


_Key = Tuple[str, str, int, int]  # mode, series, workers, streams


def _groups(series: Sequence[Rows], factors: Sequence[str]) -> Dict[_Key, JobGroup]:
    """Return the groups of all series, named by their values of the factors."""
    found = [
        group._replace(series=describe(factor_settings(rows.experiment), factors))
        for mode in MODES
        for rows in series
        for group in job_groups(rows, mode)
    ]
    return {(group.mode, group.series, group.workers, group.streams): group for group in found}


def _name(group: JobGroup) -> str:
    return f"{group.title} with {counted(group.workers, 'worker')} and {counted(group.streams, 'stream')}"


def _compare(first: JobGroup, second: JobGroup) -> PointComparison:
    rates = [[row.chars_per_sec for row in group.rows] for group in (first, second)]
    breakdowns = tuple(step_breakdowns([first, second]))
    return PointComparison(
        groups=(first, second),
        rates=(mean(rates[0]), mean(rates[1])),
        ratio=ratio(rates[1], rates[0]),
        breakdowns=breakdowns if len(breakdowns) == 2 else (),
    )
