"""Break down the time of a step into five parts, over workers and steps, and find the slowest worker."""

from collections import Counter, defaultdict
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from lstm_dist.scaling.records import Point, Times
from lstm_dist.scaling.throughput import Group
from lstm_dist.train.step_timer import StepTimes

PARTS = StepTimes._fields[1:]


class Spread(NamedTuple):
    """One of the five parts, in seconds: overall mean, and the minimum, median and maximum of the workers' means."""

    mean: float
    least: float
    median: float
    most: float


class Slowest(NamedTuple):
    """The worker that most often finished its backward pass last.

    Attributes:
        share: fraction of the sampled steps; 1 / N if it were random.
    """

    rank: int
    host: str
    share: float


class TimeSplit(NamedTuple):
    """The step breakdown of a group.

    Attributes:
        parts: by name, in step order.
        slowest: None with a single worker.
        slowest_compute: seconds, the mean over steps of the slowest worker's compute.
    """

    group: Group
    parts: Dict[str, Spread]
    slowest: Optional[Slowest]
    slowest_compute: float

    @property
    def total(self) -> float:
        """Seconds of a sampled step, averaged over workers and steps."""
        return sum(spread.mean for spread in self.parts.values())


def time_splits(groups: List[Group]) -> List[TimeSplit]:
    """Return one breakdown per group with sampled steps."""
    return [_time_split(group) for group in groups if any(point.times for point in group.points)]


def _time_split(group: Group) -> TimeSplit:
    by_step = _by_step(group.points)
    longest = [max(t.compute for t in times) for times in by_step]
    return TimeSplit(group, {part: _spread(group, part) for part in PARTS}, _slowest(by_step), float(np.mean(longest)))


def _spread(group: Group, part: str) -> Spread:
    of_rank: Dict[int, List[float]] = defaultdict(list)
    for times in (t for point in group.points for t in point.times):
        of_rank[times.rank].append(getattr(times, part))
    means = [float(np.mean(values)) for values in of_rank.values()]
    everything = [value for values in of_rank.values() for value in values]
    return Spread(float(np.mean(everything)), min(means), float(np.median(means)), max(means))


def _by_step(points: List[Point]) -> List[List[Times]]:
    """Group the workers' times by job and step."""
    found: Dict[Tuple[str, int], List[Times]] = defaultdict(list)
    for point in points:
        for times in point.times:
            found[point.id, times.step].append(times)
    return list(found.values())


def _slowest(by_step: List[List[Times]]) -> Optional[Slowest]:
    """Return the worker that is most often last; the last worker to arrive waits least."""
    last = Counter(
        (first.rank, first.host) for times in by_step if len(times) > 1 for first in [min(times, key=lambda t: t.wait)]
    )
    if not last:
        return None
    (rank, host), count = last.most_common(1)[0]
    return Slowest(rank, host, count / sum(last.values()))
