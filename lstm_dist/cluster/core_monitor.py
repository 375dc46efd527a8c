"""Monitor of the cores that a worker is pinned to: releases them while other processes use them.

On oversubscribed cores pinning is harmful: every hop of a collective waits for a rank that cannot move to a free core,
and two pinned jobs on the same two cores took 112 to 151 s instead of 40 to 46 s. Therefore a thread measures, as long
as the worker lives, how much of its cores other processes use.
"""

import os
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, FrozenSet, NamedTuple, Optional

_PERIOD = 0.5  # seconds between two measurements
# A measurement counts as contention if other processes use more than this share of the cores, and at least this many.
# The kernel counts the time of a core by sampling, so a large share has a large error.
_FOREIGN_SHARE, _FOREIGN_LEAST = 0.1, 0.25
_CONFIRMATIONS = 2  # consecutive measurements with contention after which the cores are released
_GRACE = 2.0  # seconds after pinning again in which other ranks of this job may still have to leave the cores
_FIRST_RETRY, _LAST_RETRY = 30.0, 600.0  # seconds until the worker is pinned again; doubled after each release

Cores = FrozenSet[int]


class Usage(NamedTuple):
    """A reading of three clocks, in seconds: wall clock, CPU time of some cores, CPU time of this process."""

    wall: float
    cores: float
    own: float

    def foreign(self, since: "Usage") -> float:
        """Return how many of the cores other processes have used since an earlier reading."""
        return (self.cores - since.cores - (self.own - since.own)) / (self.wall - since.wall)


def read_usage(cores: Cores, stat: Path = Path("/proc/stat")) -> Usage:
    """Read the clocks of some cores and of this process: user, nice and system time of /proc/stat."""
    ticks = 0
    for line in stat.read_text(encoding="ascii").splitlines():
        name, *times = line.split()
        if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
            ticks += sum(map(int, times[:3]))
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


class CoreMonitor(threading.Thread):
    """A thread that releases a worker's cores while other processes use them, and pins it again after a while.

    It decides by measurement, so it works for any other process: another training job, a compiler, or workers of the
    same job that the launcher assumes to be on another node.
    """

    def __init__(
        self,
        share: Cores,
        allowed: Cores,
        set_affinity: Callable[[Cores], None],
        on_first_release: Callable[[float], None],
        read: Callable[[Cores], Usage] = read_usage,
    ) -> None:
        """Take the first reading.

        Args:
            share: cores that this process is pinned to.
            allowed: cores that it may use while they are released.
            set_affinity: sets the affinity of all threads of this process.
            on_first_release: called once, with how many of the cores other processes use.
            read: reads the clocks of some cores.
        """
        super().__init__(name="core-monitor", daemon=True)
        self._share, self._allowed = share, allowed
        self._set_affinity, self._on_first_release, self._read = set_affinity, on_first_release, read
        self._last = read(share)
        self._contended = 0  # consecutive measurements with contention
        self._retry = _FIRST_RETRY
        self._retry_at: Optional[float] = None  # by the wall clock of Usage, while the cores are released
        self._grace_until = 0.0
        self._has_released = False

    def run(self) -> None:
        """Measure twice a second for as long as the process lives, or until the cores can no longer be set."""
        with suppress(OSError):  # the cores of a container or a cgroup can change while it runs
            while True:
                time.sleep(_PERIOD)
                self.step()

    def step(self) -> None:
        """Take one measurement, and release or pin the cores if it says so."""
        before, self._last = self._last, self._read(self._share)
        now = self._last.wall
        if self._retry_at is not None:
            if now >= self._retry_at:
                self._set_affinity(self._share)
                self._retry_at, self._grace_until = None, now + _GRACE
                self._retry = min(2 * self._retry, _LAST_RETRY)
            return
        if now < self._grace_until or now - before.wall > 4 * _PERIOD:
            self._contended = 0  # in the second case this process was stopped, so that others had its cores by right
            return
        foreign, threshold = self._last.foreign(before), max(_FOREIGN_LEAST, _FOREIGN_SHARE * len(self._share))
        self._contended = self._contended + 1 if foreign > threshold else 0
        if self._contended >= _CONFIRMATIONS:
            self._release(foreign)

    def _release(self, foreign: float) -> None:
        self._set_affinity(self._allowed)
        self._contended = 0
        # A multiple of the pause by the clock of the host: its workers pin themselves again at the same moment, as one
        # that still runs on all cores would look like another process to the others.
        self._retry_at = (self._last.wall // self._retry + 1) * self._retry
        if not self._has_released:
            self._has_released = True
            self._on_first_release(foreign)
