"""What a step's time is lost to, in parts of the step: what bounds the job, and what would help."""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling.link_fits import Wire
from lstm_dist.scaling.step_breakdown import TimeSplit


class Shares(NamedTuple):
    """A sampled step, in parts that sum to 1.

    Attributes:
        useful: compute, as much as one worker alone needs for so many streams.
        shared: compute beyond that: memory and cores are shared, or a part of a step does not shrink with its streams.
        wait: for the slowest worker.
        latency, bandwidth: of the exchange, told apart as the link tells them; nan where there is no link.
        exchange: both.
        rest: cutting the window, clipping, updating.
    """

    split: TimeSplit
    useful: float
    shared: float
    wait: float
    latency: float
    bandwidth: float
    exchange: float
    rest: float

    def losses(self) -> "List[tuple[str, float]]":
        """All but `useful`, the largest first: their names above, and their shares."""
        told_apart = self.latency == self.latency
        names = ["shared", "wait", *(["latency", "bandwidth"] if told_apart else ["exchange"]), "rest"]
        return sorted(((name, getattr(self, name)) for name in names), key=lambda loss: -loss[1])


def shares(splits: List[TimeSplit], wire: Optional[Wire]) -> List[Shares]:
    """One a group, beside the one of one worker; none where that was not sampled."""
    single = next((split for split in splits if split.group.workers == 1), None)
    return [_shares(split, single, wire) for split in splits] if single else []


def _shares(split: TimeSplit, single: TimeSplit, wire: Optional[Wire]) -> Shares:
    parts, group = split.parts, split.group
    alone = single.parts["compute"].mean * group.streams / group.workers / single.group.streams
    useful = min(alone, parts["compute"].mean)
    exchange, moving = parts["wire"].mean / split.total, float("nan")
    if group.workers == 1:
        moving = 0.0
    elif wire and wire.link:
        size = group.points[0].bytes
        seconds = [link.seconds(group.workers, size) for link in (wire.link.without_latency, wire.link)]
        moving = exchange * seconds[0] / seconds[1]
    return Shares(
        split,
        useful=useful / split.total,
        shared=(parts["compute"].mean - useful) / split.total,
        wait=parts["wait"].mean / split.total,
        latency=exchange - moving,
        bandwidth=moving,
        exchange=exchange,
        rest=(parts["data"].mean + parts["update"].mean) / split.total,
    )
