"""Measure time to perplexity: characters per second, characters needed, and both combined."""

from collections import defaultdict
from typing import Dict, List, NamedTuple, Tuple

from lstm_dist.experiments.stats import UNKNOWN, Estimate, mean, ratio
from lstm_dist.scaling.records import Point, Rows


class Reach(NamedTuple):
    """The jobs of one global batch and number of workers that reached the target.

    Attributes:
        streams: of the whole job.
        repeats: number of jobs that reached the target.
        missed: number of jobs that did not.
        chars: characters until the target.
        statistical: statistical efficiency, characters at the smallest batch / characters at this batch.
        chars_per_sec: of all workers together.
        hardware: characters per second per worker, relative to the smallest batch.
        seconds: seconds of training until the target.
    """

    streams: int
    workers: int
    oversubscribed: bool
    target: float
    repeats: int
    missed: int
    chars: Estimate
    statistical: Estimate
    chars_per_sec: Estimate
    hardware: Estimate
    seconds: Estimate

    @property
    def both(self) -> float:
        """Statistical times hardware efficiency: the efficiency of N workers in time to perplexity."""
        return self.statistical.value * self.hardware.value


def reaches(rows: Rows) -> List[Reach]:
    """Return entries by batch size; the smallest batch that reached the target is the reference."""
    found: Dict[Tuple[int, int], List[Point]] = defaultdict(list)
    for point in rows.finished("perplexity"):
        found[point.streams, point.workers].append(point)
    groups = [found[key] for key in sorted(found)]
    base = next((_reached(points) for points in groups if _reached(points)), [])
    return [_reach(points, base) for points in groups]


def _reached(points: List[Point]) -> List[Point]:
    return [point for point in points if point.reached]


def _reach(points: List[Point], base: List[Point]) -> Reach:
    first, reached = points[0], _reached(points)
    chars, rates = _chars(reached), _rates(reached)
    same = reached == base
    return Reach(
        first.streams,
        first.workers,
        any(point.oversubscribed for point in points),
        first.target or float("nan"),
        len(reached),
        len(points) - len(reached),
        chars=mean(chars) if reached else UNKNOWN,
        statistical=ratio(chars if same else _chars(base), chars) if reached else UNKNOWN,
        chars_per_sec=mean(rates) if reached else UNKNOWN,
        hardware=ratio(rates, rates if same else _rates(base)) / (first.workers / base[0].workers)
        if reached
        else UNKNOWN,
        seconds=mean([point.train_seconds or 0.0 for point in reached]) if reached else UNKNOWN,
    )


def _chars(points: List[Point]) -> List[float]:
    return [float(point.chars or 0) for point in points]


def _rates(points: List[Point]) -> List[float]:
    return [(point.chars or 0) / (point.train_seconds or 1.0) for point in points]
