"""Break down the time of a step into five parts, over workers and steps, and find the slowest worker."""

from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from lstm_dist.run.step_times import PARTS, SlowestWorker, last_worker, slowest_worker
from lstm_dist.scaling.records import StepProfile, TrainRow
from lstm_dist.scaling.throughput import JobGroup


class PartTimes(NamedTuple):
    """Seconds of one part of a step: overall mean, and the minimum, median and maximum of the workers' means."""

    mean: float
    minimum: float
    median: float
    maximum: float


class StepBreakdown(NamedTuple):
    """The parts of a step of a group.

    Attributes:
        parts: times of each part by name, in step order.
        slowest: None with a single worker.
        slowest_compute: seconds, the mean over steps of the slowest worker's compute.
    """

    group: JobGroup
    parts: Dict[str, PartTimes]
    slowest: Optional[SlowestWorker]
    slowest_compute: float

    @property
    def total(self) -> float:
        """Return the seconds of a timed step, averaged over workers and steps."""
        return sum(part.mean for part in self.parts.values())


def step_breakdowns(groups: List[JobGroup]) -> List[StepBreakdown]:
    """Return one breakdown per group with timed steps."""
    return [_step_breakdown(group) for group in groups if any(row.times for row in group.rows)]


def _step_breakdown(group: JobGroup) -> StepBreakdown:
    by_step = _by_step(group.rows)
    parts = {part: _part_times(group, part) for part in PARTS}
    slowest_compute = float(np.mean([max(profile.compute for profile in profiles) for profiles in by_step]))
    return StepBreakdown(group, parts, _slowest(by_step), slowest_compute)


def _part_times(group: JobGroup, part: str) -> PartTimes:
    by_rank: Dict[int, List[float]] = defaultdict(list)
    for profile in (profile for row in group.rows for profile in row.times):
        by_rank[profile.rank].append(getattr(profile, part))
    means = [float(np.mean(values)) for values in by_rank.values()]
    all_values = [value for values in by_rank.values() for value in values]
    return PartTimes(float(np.mean(all_values)), min(means), float(np.median(means)), max(means))


def _by_step(rows: List[TrainRow]) -> List[List[StepProfile]]:
    """Group the workers' profiles by job and step."""
    found: Dict[Tuple[str, int], List[StepProfile]] = defaultdict(list)
    for row in rows:
        for profile in row.times:
            found[row.id, profile.step].append(profile)
    return list(found.values())


def _slowest(by_step: List[List[StepProfile]]) -> Optional[SlowestWorker]:
    """Return the worker that is most often last; None with a single worker."""
    waits = [{(profile.rank, profile.host): profile.wait for profile in profiles} for profiles in by_step]
    return slowest_worker(Counter(last_worker(step) for step in waits if len(step) > 1))
