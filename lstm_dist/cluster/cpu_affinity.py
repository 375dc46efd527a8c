"""CPU affinity of a worker: pinned to its share of the node's cores, unless other processes use them.

Pinning makes two workers on two cores a tenth faster: a rank that waits in MPI polls, and without pinning the scheduler
keeps moving computing ranks away from it and back. On oversubscribed cores pinning is harmful: every hop of a
collective waits for a rank that cannot move to a free core, and two pinned jobs on the same two cores took 112 to 151 s
in place of 40 to 46 s. Therefore a monitor measures, as long as the worker lives, how much of its cores others use.
"""

import os
import re
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Callable, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster.launch_env import Launch, detect
from lstm_dist.cluster.launcher_watch import parent_of
from lstm_dist.cluster.time_slice import request_short_slices
from lstm_dist.errors import UserError

VARIABLE = "LSTM_DIST_PINNING"
_MODES = ("auto", "always", "never")

_MPI_DAEMONS = ("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted")
_ANCESTORS = 5  # that are looked at
_OPENMP_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "HOROVOD_THREAD_AFFINITY")

_LISTED = 4  # workers up to which each is listed

_PERIOD = 0.5  # seconds between two measurements
# Cores used by other processes above which a measurement counts as contention: of so many, at least a quarter of one.
# The kernel counts the time of a core by sampling, so that a large share has a large error.
_FOREIGN_SHARE, _FOREIGN_LEAST = 0.1, 0.25
_CONFIRMATIONS = 2  # consecutive measurements after which the cores are released
_GRACE = 2.0  # seconds after pinning again in which other ranks of this job may still have to leave the cores
_FIRST_RETRY, _LAST_RETRY = 30.0, 600.0  # seconds until the cores are tried again; doubled after each release


class Affinity(NamedTuple):
    """How a worker uses the cores of its node.

    Attributes:
        threads: OpenMP threads.
        allowed: cores that the launcher's mask allows.
        share: cores that this worker is pinned to; empty if it is not pinned.
        by_launcher: whether the launcher pinned it, not this package.
        reason: why it is not pinned; empty if it is.
        always: whether it stays pinned even if other processes use its cores.
    """

    threads: int
    allowed: FrozenSet[int]
    share: FrozenSet[int] = frozenset()
    by_launcher: bool = False
    reason: str = ""
    always: bool = False

    def describe(self) -> str:
        """Return one phrase for the log."""
        if not self.share:
            return f"not pinned: {self.reason}"
        return f"pinned to {cores_text(self.share)}{' by the launcher' if self.by_launcher else ''}"


Report = Callable[[str], None]


def plan(environ: Mapping[str, str]) -> Affinity:
    """Decide how this worker uses the cores; nothing is changed.

    The launcher's mask is what the local workers share. A narrower mask of this worker means that the launcher has
    bound it. Slurm knows which cores belong to other jobs, so its binding is final, and so is one that somebody chose;
    mpirun by default binds the ranks of every job of two to the first two cores.

    Raises:
        UserError: when LSTM_DIST_PINNING has an unknown value.
    """
    mode = environ.get(VARIABLE) or "auto"
    if mode not in _MODES:
        raise UserError(f"{VARIABLE}={mode}: should be {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    launch = detect(environ)
    allowed, own = _launcher_mask(launch), frozenset(os.sched_getaffinity(0))
    share = len(allowed) // launch.local_size
    threads = openmp_threads(environ) or max(1, min(len(own), share))
    reason = _request(mode, environ)
    if not reason and own != allowed and launch.name == "mpirun" and own == _core(allowed, launch.local_rank):
        return Affinity(threads, allowed, own, by_launcher=True, always=mode == "always")
    reason = reason or _obstacle(launch, allowed, own, threads)
    if reason:
        return Affinity(threads, own, reason=reason)
    first = launch.local_rank * share
    mine = frozenset(sorted(allowed, key=_topology)[first : first + share])
    return Affinity(threads, allowed, mine, always=mode == "always")


def _launcher_mask(launch: Launch) -> FrozenSet[int]:
    """Return the mask of the launcher: of the parent, or for mpirun of the nearest ancestor that is one of its daemons.

    Between mpirun's daemon and a worker there may be a shell or a container's starter, bound as the worker is.
    """
    pid = os.getppid()
    with suppress(OSError):  # /proc may hide the processes of others
        for _ in range(_ANCESTORS if launch.name == "mpirun" else 0):
            if Path(f"/proc/{pid}/comm").read_text().strip() in _MPI_DAEMONS:
                return frozenset(os.sched_getaffinity(pid))
            pid = parent_of(pid)
    return frozenset(os.sched_getaffinity(os.getppid()))


def _core(allowed: FrozenSet[int], number: int) -> FrozenSet[int]:
    """Return the hardware threads of a physical core, by its number among the allowed ones."""
    cores: Dict[Tuple[int, int], List[int]] = {}
    for cpu in sorted(allowed, key=_topology):
        cores.setdefault(_topology(cpu)[:2], []).append(cpu)
    return frozenset(list(cores.values())[number]) if number < len(cores) else frozenset()


def _request(mode: str, environ: Mapping[str, str]) -> str:
    """Return which variable asks for no pinning by this package; empty if none does."""
    if mode == "never":
        return f"{VARIABLE}=never"
    return next((f"{name} is set" for name in _OPENMP_BINDING if name in environ), "")


def _obstacle(launch: Launch, allowed: FrozenSet[int], own: FrozenSet[int], threads: int) -> str:
    """Return why a worker is not pinned; empty if nothing prevents it."""
    if own != allowed:
        return f"the launcher has bound it to {cores_text(own)}"
    if launch.local_size == 1:
        return "the only worker of its node"
    share = len(allowed) // launch.local_size
    if not share:
        return f"{launch.local_size} workers on {cores_text(allowed)}"
    if threads > share:
        return f"OMP_NUM_THREADS={threads} is more than its share of {share} of {len(allowed)} cores"
    if launch.local_rank >= launch.local_size:  # Slurm gives the task count of the first node only
        return "the launcher does not say how many workers this node has"
    return ""


def pin_to_cores(report: Optional[Report] = None) -> Affinity:
    """Pin this worker to its share of the node's cores and start the monitor; call it before MXNet is loaded.

    OMP_NUM_THREADS is set to the number of cores of the share where it is unset or invalid.

    Args:
        report: takes one line, when the cores are released for the first time.

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
            Monitor(affinity, report or _no_report).start()
    return affinity


def openmp_threads(environ: Optional[Mapping[str, str]] = None) -> int:
    """Return the value of OMP_NUM_THREADS; 0 if it is unset or invalid for OpenMP."""
    environ = os.environ if environ is None else environ
    given = re.fullmatch(r"([1-9]\d*)(,\d+)*", environ.get("OMP_NUM_THREADS", ""))  # "4,2": 4 threads, 2 nested in each
    return int(given[1]) if given else 0


def set_affinity(cores: FrozenSet[int]) -> None:
    """Set the affinity of all threads of this process.

    A second pass covers threads that were started with the old mask during the first.
    """
    for _ in range(2):
        for thread in os.listdir("/proc/self/task"):
            with suppress(ProcessLookupError):  # the thread has just ended
                os.sched_setaffinity(int(thread), cores)


def describe_pinning(workers: Sequence[str]) -> str:
    """Return one line that says where the workers are pinned, or why not.

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
    """A thread that releases a worker's cores while other processes use them, and pins it again after a while.

    It decides by measurement, so it works for any other process: another training job, a compiler, or workers of the
    same job that the launcher assumes to be on another node.
    """

    def __init__(
        self,
        affinity: Affinity,
        report: Report,
        read: Callable[[FrozenSet[int]], Usage] = read_usage,
        apply: Callable[[FrozenSet[int]], None] = set_affinity,
    ) -> None:
        super().__init__(name="cpu-affinity", daemon=True)
        self._affinity, self._report, self._read, self._apply = affinity, report, read, apply
        self._last = read(affinity.share)
        self._contended = 0  # consecutive contended measurements
        self._retry = _FIRST_RETRY
        self._retry_at: Optional[float] = None  # by the wall clock of Usage, while the cores are released
        self._quiet_until = 0.0
        self._has_reported = False

    def run(self) -> None:
        """Measure twice a second for as long as the process lives, or until the cores can no longer be set."""
        with suppress(OSError):  # the cores of a container or a cgroup can change while it runs
            while True:
                time.sleep(_PERIOD)
                self.step()

    def step(self) -> None:
        """Take one measurement, and release or pin the cores if it says so."""
        before, self._last = self._last, self._read(self._affinity.share)
        now = self._last.wall
        if self._retry_at is not None:
            if now >= self._retry_at:
                self._apply(self._affinity.share)
                self._retry_at, self._quiet_until = None, now + _GRACE
                self._retry = min(2 * self._retry, _LAST_RETRY)
            return
        if now < self._quiet_until or now - before.wall > 4 * _PERIOD:
            self._contended = 0  # in the second case this process was stopped, so that others had its cores by right
            return
        foreign, cores = self._last.foreign(before), len(self._affinity.share)
        self._contended = self._contended + 1 if foreign > max(_FOREIGN_LEAST, _FOREIGN_SHARE * cores) else 0
        if self._contended >= _CONFIRMATIONS:
            self._release(foreign)

    def _release(self, foreign: float) -> None:
        self._apply(self._affinity.allowed)
        self._contended = 0
        # A multiple of the pause by the clock of the host: its workers pin themselves again at the same moment, as one
        # that still runs on all cores would look like another process to the others.
        self._retry_at = (self._last.wall // self._retry + 1) * self._retry
        if not self._has_reported:
            self._report(_describe_release(self._affinity, foreign))
            self._has_reported = True


def _describe_release(affinity: Affinity, foreign: float) -> str:
    where = f"rank {detect().rank} on {socket.gethostname()}"
    return (
        f"note: {where} is not pinned to {cores_text(affinity.share)} any more, as other processes use "
        f"{foreign:.1f} of {len(affinity.share)}; it is pinned again when they are free"
    )


def _no_report(line: str) -> None:
    """Report nothing."""


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
    """Return (socket, core, number), a sort key that puts the hardware threads of a core next to each other."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package, core = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        package = core = 0
    return package, core, cpu
