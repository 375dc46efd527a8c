"""Timing of every Nth step: the time of each part of a step.

MXNet and Horovod work asynchronously, so a part can only be timed by waiting for it while nothing else runs. That
slows a step down, which is why only a sample of the steps is profiled.
"""

import socket
import time
from typing import TYPE_CHECKING, Any, Dict, List

from lstm_dist.run.step_times import StepTimes

if TYPE_CHECKING:
    from mxnet.nd import NDArray

    from lstm_dist.comm.world import World


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
        self._started = time.time()
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
        parts = (after - before for before, after in zip(self._laps, self._laps[1:]))
        return StepTimes(step, self._sent, self._started, *parts)


def collect(times: List[StepTimes], world: "World") -> List[Dict[str, Any]]:
    """Return the times of all workers with rank and host, on every worker."""
    return [
        {"rank": rank, "host": host, **StepTimes(*one)._asdict()}
        for rank, (host, theirs) in enumerate(world.allgather_object([socket.gethostname(), times], "times"))
        for one in theirs
    ]
