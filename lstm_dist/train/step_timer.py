"""Where the time of a step goes: its parts, taken apart on sampled steps. The others are left alone.

MXNet and Horovod work behind Python's back, so that a part's time can only be had by waiting for it, and by having
nothing else under way meanwhile. That costs a step some of its speed, which is why only one in many is sampled.
"""

import json
import socket
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple

if TYPE_CHECKING:
    from mxnet.nd import NDArray

    from lstm_dist.comm.horovod_group import World


class StepTimes(NamedTuple):
    """Seconds of one worker's part of one step.

    Attributes:
        step: counted from 1.
        data: cutting the window.
        compute: forward and backward.
        wait: from there until the slowest worker has arrived.
        wire: the average itself.
        update: the clip and the SGD step.
    """

    step: int
    data: float
    compute: float
    wait: float
    wire: float
    update: float


class Stopwatch:
    """What a step tells of its parts; this one does not listen, and keeps nobody waiting."""

    def lap(self, *results: "NDArray") -> None:
        """A part has been asked for, and `results` are what it makes."""

    def gather(self, world: "World") -> None:
        """The exchange comes next."""


class RunningStopwatch(Stopwatch):
    """One that waits for every part, and for every worker before the exchange."""

    def __init__(self) -> None:
        self._laps = [time.perf_counter()]

    def lap(self, *results: "NDArray") -> None:
        """See Stopwatch."""
        for result in results:
            result.wait_to_read()
        self._laps.append(time.perf_counter())

    def gather(self, world: "World") -> None:
        """A barrier, which Horovod does not have for MXNet: a sum of nothing, and the last one's wait is its cost."""
        if world.size > 1:
            world.sum([0.0], "barrier")
        self._laps.append(time.perf_counter())

    def read(self, step: int) -> StepTimes:
        """The times of the step that is over, this number's."""
        return StepTimes(step, *(after - before for before, after in zip(self._laps, self._laps[1:])))


def collect(times: List[StepTimes], world: "World") -> List[Dict[str, Any]]:
    """The times of all workers, on every one, each with its rank and host."""
    mine = json.dumps([socket.gethostname(), times])
    return [
        {"rank": rank, "host": host, **StepTimes(*one)._asdict()}
        for rank, (host, theirs) in enumerate(map(json.loads, world.gather_text(mine, "times")))
        for one in theirs
    ]
