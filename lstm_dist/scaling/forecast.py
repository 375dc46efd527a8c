"""Predict steps from compute and link, for measured and for larger numbers of workers.

All workers wait for the slowest one, then exchange [Valiant 1990, bulk-synchronous steps]:

    seconds(N) = data + compute of the slowest + update + link(N, bytes)
"""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling.allreduce_model import Link, traffic
from lstm_dist.scaling.link_fits import Wire
from lstm_dist.scaling.prediction import Prediction, fit_compute, predict_strong, predict_weak
from lstm_dist.scaling.step_breakdown import TimeSplit
from lstm_dist.scaling.throughput import Group, Throughput


class Step(NamedTuple):
    """A step of a group: the predicted own part of the slowest worker and of the link, and the measured seconds."""

    group: Group
    predicted: Prediction
    measured: float

    @property
    def off(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted.step / self.measured - 1


class Far(NamedTuple):
    """A predicted step, in seconds: the middle, and the edges that Forecast defines."""

    workers: int
    low: float
    middle: float
    high: float


class Forecast(NamedTuple):
    """Steps of more workers than were measured.

    The lower edge assumes that the cost of a call besides its bytes is independent of N, the upper edge that it is a
    cost per message, and so grows with N. Under weak scaling, the lower edge also assumes the compute time of a single
    worker on an otherwise idle machine; the others use that of the measured N.

    Attributes:
        measured: largest N that was not oversubscribed.
        single: measured seconds per step of one worker.
    """

    mode: str
    measured: int
    single: float
    far: List[Far]

    def efficiency(self, workers: int, step: float) -> float:
        """Return the efficiency of `workers` workers with steps of `step` seconds."""
        return self.single / step / (workers if self.mode == "strong" else 1)


def steps(found: List[Throughput], splits: List[TimeSplit], wire: Optional[Wire]) -> List[Step]:
    """Return one entry per group with sampled steps; without a link, only for one worker."""
    of_workers = {split.group.workers: split for split in splits}
    return [
        _step(reached, of_workers[reached.group.workers], wire)
        for reached in found
        if reached.group.workers in of_workers and (wire or reached.group.workers == 1)
    ]


def _step(reached: Throughput, split: TimeSplit, wire: Optional[Wire]) -> Step:
    group = reached.group
    exchange = wire.link.seconds(group.workers, group.points[0].bytes) if wire and wire.link else 0.0
    return Step(group, Prediction(group.workers, own_seconds(split), exchange), reached.step)


def own_seconds(split: TimeSplit) -> float:
    """Return the seconds of a step without the exchange, with the slowest worker's compute."""
    return split.parts["data"].mean + split.slowest_compute + split.parts["update"].mean


def forecast(found: List[Throughput], splits: List[TimeSplit], wire: Optional[Wire]) -> Optional[Forecast]:
    """Predict from groups that are not oversubscribed; None without several workers among them, or a link."""
    good = [split for split in splits if not split.group.oversubscribed]
    if not (wire and wire.link and good and good[0].group.workers == 1 and len(good) > 1):
        return None
    last = good[-1].group
    size = last.points[0].bytes
    low, high = extremes(wire.link, max(wire.workers), size)
    edges = [_predict(good[:1] if last.mode == "weak" else good, low, size)]
    edges += [_predict(good, link, size) for link in (wire.link, high)]
    far = [Far(one.workers, one.step, two.step, three.step) for one, two, three in zip(*edges)]
    further = [step for step in far if step.workers >= last.workers]
    return Forecast(last.mode, last.workers, found[0].step, further) if len(further) > 1 else None


def _predict(splits: List[TimeSplit], link: Link, size: int) -> List[Prediction]:
    """Predict from the last group's compute (weak), or a linear fit of compute over streams per worker (strong)."""
    own = [own_seconds(split) for split in splits]
    if splits[0].group.mode == "weak":
        return predict_weak(own[-1], size, link)
    shares = [-(-split.group.streams // split.group.workers) for split in splits]
    return predict_strong(splits[0].group.streams, fit_compute(shares, own), size, link)


def extremes(link: Link, workers: int, size: int) -> "tuple[Link, Link]":
    """Return two links that cost the same at `workers` workers: latency all per call, and all per message."""
    messages, _ = traffic(workers, size, link.algorithm)
    none = link.without_latency
    fixed = link.seconds(workers, size) - none.seconds(workers, size)
    return none._replace(overhead=fixed), none._replace(alpha_short=fixed / messages, alpha=fixed / messages)
