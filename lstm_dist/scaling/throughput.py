"""Characters per second, speedup and efficiency for every number of workers, and the laws fitted to them."""

from collections import defaultdict
from typing import Dict, List, NamedTuple, Optional, Tuple

from lstm_dist.experiments.stats import UNKNOWN, Estimate, mean, ratio
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Point, Rows
from lstm_dist.scaling.speedup_laws import Law, fit_amdahl, fit_usl


class Group(NamedTuple):
    """The finished jobs of one mode and one number of workers."""

    mode: str
    workers: int
    streams: int
    oversubscribed: bool
    points: List[Point]


class Throughput(NamedTuple):
    """Results of a group; speedup and efficiency are nan if the mode has no job with one worker.

    Attributes:
        chars_per_sec: of all workers together, averaged over the repeats.
        speedup: chars_per_sec relative to one worker.
        efficiency: speedup / N.
        step: seconds per step.
    """

    group: Group
    chars_per_sec: Estimate
    speedup: Estimate
    efficiency: Estimate
    step: float


class Laws(NamedTuple):
    """Laws fitted to the points of a mode that are not oversubscribed; None with too few points.

    Attributes:
        workers: N of the fitted points, one per residual.
    """

    mode: str
    workers: Tuple[int, ...]
    amdahl: Optional[Law]
    usl: Optional[Law]


def groups(rows: Rows, mode: str) -> List[Group]:
    """Return the groups by ascending number of workers.

    One worker is the same job under weak and strong scaling: a mode without one uses the other mode's.
    """
    found: Dict[int, List[Point]] = defaultdict(list)
    for point in rows.finished(mode):
        found[point.workers].append(point)
    if found and 1 not in found:
        found[1] = [p for p in rows.finished(*MODES) if p.workers == 1 and p.streams == rows.experiment.streams]
    return [
        Group(mode, workers, points[0].streams, any(p.oversubscribed for p in points), points)
        for workers, points in sorted(found.items())
        if points
    ]


def throughputs(rows: Rows, mode: str) -> List[Throughput]:
    """Return one entry per number of workers."""
    found = groups(rows, mode)
    rates = {group.workers: [point.chars_per_sec for point in group.points] for group in found}
    return [_throughput(group, rates[group.workers], rates.get(1), rows.experiment.seq_len) for group in found]


def _throughput(group: Group, rates: List[float], single: Optional[List[float]], seq_len: int) -> Throughput:
    reached, speedup = mean(rates), ratio(rates, single) if single else UNKNOWN
    return Throughput(group, reached, speedup, speedup / group.workers, group.streams * seq_len / reached.value)


def laws(mode: str, found: List[Throughput]) -> Laws:
    """Fit the laws to the points with several workers that are not oversubscribed.

    Amdahl's law has one parameter and needs one point; the universal scalability law needs two.
    """
    good = [t for t in found if t.group.workers > 1 and not t.group.oversubscribed and t.speedup.value > 0]
    workers, speedups = tuple(t.group.workers for t in good), [t.speedup.value for t in good]
    return Laws(
        mode,
        workers,
        fit_amdahl(workers, speedups) if workers else None,
        fit_usl(workers, speedups) if len(workers) > 1 else None,
    )
