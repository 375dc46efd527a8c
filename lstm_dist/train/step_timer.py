"""Profiling of sampled steps: the time of each part of a step.

MXNet and Horovod work asynchronously, so a part can only be timed by waiting for it while nothing else runs. That
slows a step down, which is why only a sample of the steps is profiled.
"""

import socket
import time
from typing import TYPE_CHECKING, Any, Dict, List, NamedTuple

if TYPE_CHECKING:
    from mxnet.nd import NDArray

    from lstm_dist.comm.world import World


class StepTimes(NamedTuple):
    """Seconds that one worker spent in the parts of one step.

    Attributes:
        step: counted from 1.
        bytes: that this worker sent, or would have sent to others: the exchanged vector in the type of communication.
        data: cutting the window. Consecutive windows of a prepared corpus are read up to 16 at a time, by the first.
        compute: forward and backward.
        wait: waiting for the slowest worker.
        wire: communication, that is averaging the gradients.
        update: clipping and the SGD update.
    """

    step: int
    bytes: int
    data: float
    compute: float
    wait: float
    wire: float
    update: float


PARTS = StepTimes._fields[2:]


class StepTimer:
    """Timer that does nothing, for steps that are not profiled."""

    def lap(self, *results: "NDArray") -> None:
        """Mark the end of a part of the step that computes `results`."""

    def barrier(self, world: "World", sent: int) -> None:
        """Mark the start of communication of `sent` bytes."""


NOT_PROFILED = StepTimer()


class RunningStepTimer(StepTimer):
    """Timer that waits for every part, and for all workers before communication."""

    def __init__(self) -> None:
        self._laps, self._sent = [time.perf_counter()], 0

    def lap(self, *results: "NDArray") -> None:
        """Wait for `results` and record the time."""
        for result in results:
            result.wait_to_read()
        self._laps.append(time.perf_counter())

    def barrier(self, world: "World", sent: int) -> None:
        """Wait for all workers with an allreduce of zero, because Horovod has no barrier for MXNet; record the time."""
        self._sent = sent
        if world.size > 1:
            world.sum([0.0], "barrier")
        self._laps.append(time.perf_counter())

    def read(self, step: int) -> StepTimes:
        """Return the times of the finished step, whose number is `step`."""
        return StepTimes(step, self._sent, *(after - before for before, after in zip(self._laps, self._laps[1:])))


def collect(times: List[StepTimes], world: "World") -> List[Dict[str, Any]]:
    """Return the times of all workers with rank and host, on every worker."""
    return [
        {"rank": rank, "host": host, **StepTimes(*one)._asdict()}
        for rank, (host, theirs) in enumerate(world.allgather_object([socket.gethostname(), times], "times"))
        for one in theirs
    ]
