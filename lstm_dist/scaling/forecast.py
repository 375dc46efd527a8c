"""What compute and link say of a step: beside what was measured, and for numbers of workers that nobody has measured.

All workers wait for the slowest, then exchange [Valiant 1990, bulk-synchronous steps]:

    seconds(N) = data + compute of the slowest + update + link(N, bytes)
"""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling.allreduce_model import Link, traffic
from lstm_dist.scaling.link_fits import Wire
from lstm_dist.scaling.prediction import Prediction, fit_compute, predict_strong, predict_weak
from lstm_dist.scaling.step_breakdown import TimeSplit
from lstm_dist.scaling.throughput import Group, Throughput


class Step(NamedTuple):
    """A step of a group: the slowest worker's own part and the link's, and the seconds that were measured of both."""

    group: Group
    predicted: Prediction
    measured: float

    @property
    def off(self) -> float:
        """Predicted / measured - 1."""
        return self.predicted.step / self.measured - 1


class Far(NamedTuple):
    """A predicted step, seconds: the middle, and the edges that Forecast tells of."""

    workers: int
    low: float
    middle: float
    high: float


class Forecast(NamedTuple):
    """Steps of more workers than were measured.

    The lower edge takes what a call costs besides its bytes to be the same for any number of workers, the upper edge to
    be a cost of its messages, of which there are the more, the more workers there are. Under weak scaling the lower
    edge also gives every worker the compute of one that has a machine to itself, the rest that of the measured N.

    Attributes:
        measured: the most workers that had cores of their own.
        single: seconds a step of one worker, measured.
    """

    mode: str
    measured: int
    single: float
    far: List[Far]

    def efficiency(self, workers: int, step: float) -> float:
        """Of so many workers, if a step takes them so many seconds."""
        return self.single / step / (workers if self.mode == "strong" else 1)


def steps(found: List[Throughput], splits: List[TimeSplit], wire: Optional[Wire]) -> List[Step]:
    """One a group whose steps were sampled; without a link, only of one worker."""
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
    """What a step takes without the exchange, the slowest worker's compute included."""
    return split.parts["data"].mean + split.slowest_compute + split.parts["update"].mean


def forecast(found: List[Throughput], splits: List[TimeSplit], wire: Optional[Wire]) -> Optional[Forecast]:
    """From what was measured with cores of its own; None without more than one worker among that, or a link."""
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
    """Weak: all compute like the last of these. Strong: compute follows the streams of a worker, a line through all."""
    own = [own_seconds(split) for split in splits]
    if splits[0].group.mode == "weak":
        return predict_weak(own[-1], size, link)
    shares = [-(-split.group.streams // split.group.workers) for split in splits]
    return predict_strong(splits[0].group.streams, fit_compute(shares, own), size, link)


def extremes(link: Link, workers: int, size: int) -> "tuple[Link, Link]":
    """Two links that cost the same at so many workers: all but the bytes paid once a call, and once a message."""
    messages, _ = traffic(workers, size, link.algorithm)
    none = link.without_latency
    fixed = link.seconds(workers, size) - none.seconds(workers, size)
    return none._replace(overhead=fixed), none._replace(alpha_short=fixed / messages, alpha=fixed / messages)
