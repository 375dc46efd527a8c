"""Measure time to perplexity: characters per second, characters needed, and both combined."""

from collections import defaultdict
from math import nan
from typing import Dict, List, NamedTuple, Tuple

from lstm_dist.experiments.stats import UNKNOWN, Estimate, mean, ratio
from lstm_dist.scaling.records import Rows, TrainRow


class TargetRuns(NamedTuple):
    """The jobs of one series, global batch and number of workers that train to the target perplexity.

    Attributes:
        series: name of the series; empty for the only one.
        streams: number of streams of the whole job.
        reached, missed: number of jobs that reached the target, and that did not.
        chars: characters until the target.
        statistical: statistical efficiency, characters at the smallest batch / characters at this batch.
        chars_per_sec: characters per second of all workers together.
        hardware: characters per second per worker, relative to the smallest batch.
        seconds: seconds of training until the target.
    """

    series: str
    streams: int
    workers: int
    oversubscribed: bool
    target: float
    reached: int
    missed: int
    chars: Estimate
    statistical: Estimate
    chars_per_sec: Estimate
    hardware: Estimate
    seconds: Estimate

    @property
    def both(self) -> float:
        """Return statistical times hardware efficiency: the efficiency of N workers in time to perplexity."""
        return self.statistical.value * self.hardware.value


def target_runs(rows: Rows) -> List[TargetRuns]:
    """Return entries of one series by batch size; the smallest batch that reached the target is the reference."""
    found: Dict[Tuple[int, int], List[TrainRow]] = defaultdict(list)
    for row in rows.finished(["perplexity"]):
        found[row.streams, row.workers].append(row)
    groups = [found[key] for key in sorted(found)]
    base = next((_reached(group) for group in groups if _reached(group)), [])
    return [_target_runs(group, base, rows.series) for group in groups]


def _reached(rows: List[TrainRow]) -> List[TrainRow]:
    return [row for row in rows if row.reached]


def _target_runs(rows: List[TrainRow], base: List[TrainRow], series: str) -> TargetRuns:
    """Return the summary of one group; efficiencies are relative to `base`."""
    first, reached = rows[0], _reached(rows)
    chars = statistical = rate = hardware = seconds = UNKNOWN
    if reached:
        all_chars, rates = _chars(reached), _rates(reached)
        is_base = reached == base
        chars, rate, seconds = mean(all_chars), mean(rates), mean([row.train_seconds or 0.0 for row in reached])
        statistical = ratio(all_chars if is_base else _chars(base), all_chars)
        hardware = ratio(rates, rates if is_base else _rates(base)).scaled(base[0].workers / first.workers)
    return TargetRuns(
        series=series,
        streams=first.streams,
        workers=first.workers,
        oversubscribed=any(row.oversubscribed for row in rows),
        target=first.target or nan,
        reached=len(reached),
        missed=len(rows) - len(reached),
        chars=chars,
        statistical=statistical,
        chars_per_sec=rate,
        hardware=hardware,
        seconds=seconds,
    )


def _chars(rows: List[TrainRow]) -> List[float]:
    return [float(row.chars or 0) for row in rows]


def _rates(rows: List[TrainRow]) -> List[float]:
    return [(row.chars or 0) / (row.train_seconds or 1.0) for row in rows]
