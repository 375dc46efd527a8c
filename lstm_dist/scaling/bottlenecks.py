"""Attribute the time of a step to losses: what limits the job, and what would help."""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling.link_fits import Wire
from lstm_dist.scaling.step_breakdown import TimeSplit


class Shares(NamedTuple):
    """Fractions of a sampled step, which sum to 1.

    Attributes:
        useful: compute that one worker alone needs for the same number of streams.
        shared: additional compute, from shared memory and cores or from work that does not shrink with the streams.
        wait: for the slowest worker.
        latency, bandwidth: parts of the exchange by the fitted link; nan without a link.
        exchange: the sum of both.
        rest: cutting the window, clipping and updating.
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
        """Return the names and shares of all but `useful`, largest first."""
        told_apart = self.latency == self.latency
        names = ["shared", "wait", *(["latency", "bandwidth"] if told_apart else ["exchange"]), "rest"]
        return sorted(((name, getattr(self, name)) for name in names), key=lambda loss: -loss[1])


def shares(splits: List[TimeSplit], wire: Optional[Wire]) -> List[Shares]:
    """Return one entry per group, relative to the one-worker group; none if that group was not sampled."""
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
