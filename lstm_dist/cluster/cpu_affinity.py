"""CPU affinity of a worker: its share of the node's cores while it has them to itself, all of them once it has not.

Pinning is worth a tenth of the speed of two workers on two cores: a rank that waits in MPI polls, and a scheduler that
is free to moves the ranks that compute out of its way and back. It is harmful on cores that other processes use: every
hop of a collective then waits for a rank that cannot move to a free core, and two pinned jobs on the same cores take
ten times as long. So a monitor measures, as long as the worker lives, how much of its cores other processes use.
"""

import os
import re
import socket
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster.launch_env import Launch, detect
from lstm_dist.cluster.time_slice import request_short_slices
from lstm_dist.errors import UserError

VARIABLE = "LSTM_DIST_PINNING"
_MODES = ("auto", "always", "never")

_LISTED = 4  # workers that are named one by one

_PERIOD = 0.5  # seconds between two measurements
_FOREIGN = 0.25  # cores used by other processes above which a measurement counts as contention
_CONFIRMATIONS = 2  # measurements in a row that release the cores
_FIRST_RETRY, _LAST_RETRY = 30.0, 600.0  # seconds until the cores are tried again; doubled after each release


class Affinity(NamedTuple):
    """How a worker uses the cores of its node.

    Attributes:
        threads: OpenMP threads.
        allowed: cores that the launcher's mask allows.
        share: cores that this worker is pinned to; empty if it is not pinned.
        by_launcher: whether the launcher has pinned it, and not this package.
        reason: why it is not pinned; empty if it is.
        always: whether it stays pinned whatever other processes do.
    """

    threads: int
    allowed: FrozenSet[int]
    share: FrozenSet[int] = frozenset()
    by_launcher: bool = False
    reason: str = ""
    always: bool = False

    def describe(self) -> str:
        """One phrase for the log."""
        if not self.share:
            return f"not pinned: {self.reason}"
        return f"pinned to {cores_text(self.share)}{' by the launcher' if self.by_launcher else ''}"


def plan(environ: Mapping[str, str]) -> Affinity:
    """Decide how this worker uses the cores; nothing is changed.

    The launcher's own mask (the parent process) is what the local workers share. A narrower mask of this worker means
    that the launcher has bound it. Slurm knows which cores belong to other jobs, so that its binding is final; mpirun
    does not, and binds the ranks of every job of two to the first two cores.

    Raises:
        UserError: when LSTM_DIST_PINNING has an unknown value.
    """
    mode = environ.get(VARIABLE) or "auto"
    if mode not in _MODES:
        raise UserError(f"{VARIABLE}={mode}: should be {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    launch = detect(environ)
    allowed, own = frozenset(os.sched_getaffinity(os.getppid())), frozenset(os.sched_getaffinity(0))
    share = len(allowed) // launch.local_size
    threads = openmp_threads(environ) or max(1, min(len(own), share))
    if own != allowed and launch.name == "mpirun" and mode != "never" and len(own) <= share:
        return Affinity(threads, allowed, own, by_launcher=True, always=mode == "always")
    reason = _obstacle(mode, launch, environ, allowed, own, threads)
    if reason:
        return Affinity(threads, own, reason=reason)
    first = launch.local_rank * share
    mine = frozenset(sorted(allowed, key=_topology)[first : first + share])
    return Affinity(threads, allowed, mine, always=mode == "always")


def _obstacle(
    mode: str, launch: Launch, environ: Mapping[str, str], allowed: FrozenSet[int], own: FrozenSet[int], threads: int
) -> str:
    """Why a worker is not pinned; empty if nothing prevents it."""
    if mode == "never":
        return f"{VARIABLE}=never"
    if "OMP_PROC_BIND" in environ:
        return "OMP_PROC_BIND is set"
    if own != allowed:
        return f"the launcher has bound it to {cores_text(own)}"
    if launch.local_size == 1:
        return "the only worker of its node"
    share = len(allowed) // launch.local_size
    if not share:
        return f"{launch.local_size} workers on {cores_text(allowed)}"
    if threads > share:
        return f"OMP_NUM_THREADS={threads} is more than its share of {share} of {len(allowed)} cores"
    if launch.local_rank >= launch.local_size:  # Slurm tells the tasks of the first node only, and this is another
        return "the launcher does not say how many workers this node has"
    return ""


def pin_to_cores() -> Affinity:
    """Pin this worker to its share of the node's cores and start the monitor; call it before MXNet is loaded.

    OMP_NUM_THREADS is set to the number of cores of the share where it is unset or invalid.

    Raises:
        UserError: when LSTM_DIST_PINNING has an unknown value.
    """
    affinity = plan(os.environ)
    if openmp_threads(os.environ) != affinity.threads:
        os.environ["OMP_NUM_THREADS"] = str(affinity.threads)
    if detect().size > 1:
        request_short_slices()
    if affinity.share:
        set_affinity(affinity.share)
        if not affinity.always:
            Monitor(affinity, _report).start()
    return affinity


def openmp_threads(environ: Optional[Mapping[str, str]] = None) -> int:
    """Return what OMP_NUM_THREADS says; 0 if it is unset or not a number that OpenMP accepts."""
    environ = os.environ if environ is None else environ
    given = re.fullmatch(r"([1-9]\d*)(,\d+)*", environ.get("OMP_NUM_THREADS", ""))  # "4,2": 4, and 2 inside of each
    return int(given[1]) if given else 0


def set_affinity(cores: FrozenSet[int]) -> None:
    """Set the affinity of all threads of this process.

    A second pass finds threads that a thread of the old mask has started during the first.
    """
    for _ in range(2):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # the thread has just ended
                os.sched_setaffinity(int(thread), cores)


def describe_pinning(workers: Sequence[str]) -> str:
    """Return one line on where the workers are pinned, or why not.

    Args:
        workers: `Affinity.describe()` of every rank, at least two.
    """
    if len(set(workers)) == 1:
        return f"cores: each worker is {workers[0]}"
    if len(workers) <= _LISTED:
        return "cores: " + ", ".join(f"rank {rank} is {phrase}" for rank, phrase in enumerate(workers))
    pinned = sum(phrase.startswith("pinned") for phrase in workers)
    return f"cores: {pinned} of {len(workers)} workers are pinned to their share of their node's cores, see run.json"


class Usage(NamedTuple):
    """A reading of three clocks, in seconds: wall clock, CPU time of some cores, CPU time of this process."""

    wall: float
    cores: float
    own: float

    def foreign(self, since: "Usage") -> float:
        """Return how many of the cores other processes have used since an earlier reading."""
        return (self.cores - since.cores - (self.own - since.own)) / (self.wall - since.wall)


def read_usage(cores: FrozenSet[int]) -> Usage:
    """Read the clocks of some cores and of this process: user, nice and system time of /proc/stat."""
    ticks = 0
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            name, *times = line.split()
            if name[:3] == "cpu" and name[3:].isdigit() and int(name[3:]) in cores:
                ticks += sum(map(int, times[:3]))
    return Usage(time.monotonic(), ticks / os.sysconf("SC_CLK_TCK"), time.process_time())


class Monitor(threading.Thread):
    """Releases a worker's cores while other processes use them, and pins it again after a while.

    Decides by measurement, so that it makes no difference who the others are: another training job, a compiler, or
    workers of the same job whose launcher believes them to be on another node.
    """

    def __init__(
        self,
        affinity: Affinity,
        report: Callable[[Affinity, float], None],
        read: Callable[[FrozenSet[int]], Usage] = read_usage,
        apply: Callable[[FrozenSet[int]], None] = set_affinity,
    ) -> None:
        super().__init__(name="cpu-affinity", daemon=True)
        self._affinity, self._report, self._read, self._apply = affinity, report, read, apply
        self._last = read(affinity.share)
        self._contended = 0  # measurements in a row
        self._retry = _FIRST_RETRY
        self._released: Optional[float] = None  # when, by the wall clock of Usage
        self._has_reported = False

    def run(self) -> None:
        """Measure twice a second for as long as the process lives."""
        while True:
            time.sleep(_PERIOD)
            self.step()

    def step(self) -> None:
        """Take one measurement, and release or pin the cores if it says so."""
        before, self._last = self._last, self._read(self._affinity.share)
        if self._released is not None:
            if self._last.wall - self._released >= self._retry:
                self._apply(self._affinity.share)
                self._released, self._retry = None, min(2 * self._retry, _LAST_RETRY)
            return
        if self._last.wall - before.wall > 4 * _PERIOD:
            self._contended = 0  # this process was stopped, so that others had its cores by right
            return
        foreign = self._last.foreign(before)
        self._contended = self._contended + 1 if foreign > _FOREIGN else 0
        if self._contended >= _CONFIRMATIONS:
            self._apply(self._affinity.allowed)
            self._released, self._contended = self._last.wall, 0
            if not self._has_reported:
                self._report(self._affinity, foreign)
                self._has_reported = True


def _report(affinity: Affinity, foreign: float) -> None:
    """Write one line for the first release; later ones are silent."""
    where = f"rank {detect().rank} on {socket.gethostname()}"
    sys.stderr.write(
        f"note: {where} is not pinned to {cores_text(affinity.share)} any more, as other processes use "
        f"{foreign:.1f} of {len(affinity.share)}; it is pinned again when they are free\n"
    )
    sys.stderr.flush()


def cores_text(cores: FrozenSet[int]) -> str:
    """Return "core 3" or "cores 0-3, 8"."""
    runs: List[List[int]] = []
    for core in sorted(cores):
        if runs and core == runs[-1][1] + 1:
            runs[-1][1] = core
        else:
            runs.append([core, core])
    text = ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)
    return f"core{'s' if len(cores) > 1 else ''} {text}"


def _topology(cpu: int) -> Tuple[int, int, int]:
    """Return socket, core and number, by which the two threads of a core are neighbours; Linux numbers them apart."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package, core = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        package = core = 0
    return package, core, cpu
