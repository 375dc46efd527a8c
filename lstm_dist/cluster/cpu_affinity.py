"""CPU affinity of a worker: pinned to its share of the node's cores, unless other processes use them.

Pinning makes two workers on two cores a tenth faster: a rank that waits in MPI polls, and without pinning the scheduler
keeps moving computing ranks away from it and back. While other processes use its cores, a CoreMonitor releases them.
"""

import os
import re
import socket
from contextlib import suppress
from pathlib import Path
from typing import Callable, Collection, Dict, FrozenSet, List, Mapping, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster.core_monitor import CoreMonitor
from lstm_dist.cluster.launch_env import Launch, detect
from lstm_dist.cluster.launcher_watch import parent_of
from lstm_dist.cluster.library_variables import MOST_THREADS
from lstm_dist.cluster.time_slice import request_short_slices
from lstm_dist.errors import ExitStatus, UserError

VARIABLE = "LSTM_DIST_PINNING"
_MODES = ("auto", "always", "never")

_MPI_DAEMONS = ("mpirun", "mpiexec", "orterun", "orted", "prterun", "prted")
_MAX_ANCESTORS = 5  # that are searched for mpirun's daemon
_THREADS = "OMP_NUM_THREADS"
_OPENMP_BINDING = ("OMP_PROC_BIND", "OMP_PLACES", "GOMP_CPU_AFFINITY", "KMP_AFFINITY", "HOROVOD_THREAD_AFFINITY")

_MAX_LISTED = 4  # workers up to which the log lists each


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


ReportLine = Callable[[str], None]


def plan(environ: Mapping[str, str]) -> Affinity:
    """Decide how this worker uses the cores; nothing is changed.

    The launcher's mask is what the local workers share. A narrower mask of this worker means that the launcher has
    bound it. Slurm knows which cores belong to other jobs, so its binding is final, and so is one that a user chose;
    mpirun by default binds the ranks of every job of two to the first two cores.

    Raises:
        UserError: when LSTM_DIST_PINNING has an unknown value, or OMP_NUM_THREADS an impossible one.
    """
    mode = environ.get(VARIABLE) or "auto"
    if mode not in _MODES:
        raise UserError(f"{VARIABLE}={mode}: should be {', '.join(_MODES[:-1])} or {_MODES[-1]}")
    launch = detect(environ)
    allowed, own = _launcher_mask(launch), frozenset(os.sched_getaffinity(0))
    share = len(allowed) // launch.local_size
    threads = openmp_threads(environ) or max(1, min(len(own), share))
    reason = _disabled_by(mode, environ)
    if not reason and own != allowed and launch.name == "mpirun" and own == _core(allowed, launch.local_rank):
        return Affinity(threads, allowed, own, by_launcher=True, always=mode == "always")
    reason = reason or _prevented_by(launch, allowed, own, threads)
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
        for _ in range(_MAX_ANCESTORS if launch.name == "mpirun" else 0):
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


def _disabled_by(mode: str, environ: Mapping[str, str]) -> str:
    """Return which variable disables pinning by this package; empty if none does."""
    if mode == "never":
        return f"{VARIABLE}=never"
    return next((f"{name} is set" for name in _OPENMP_BINDING if name in environ), "")


def _prevented_by(launch: Launch, allowed: FrozenSet[int], own: FrozenSet[int], threads: int) -> str:
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


def pin_to_cores(report: Optional[ReportLine] = None) -> Affinity:
    """Pin this worker to its share of the node's cores and start the monitor; call it before MXNet is loaded.

    OMP_NUM_THREADS is set to the number of cores of the share where it is unset or invalid, and to its first number
    where it is a list: OpenMP accepts one for nested parallel regions, MXNet aborts.

    Args:
        report: receives one line, when the cores are released for the first time.

    Raises:
        UserError: as `plan`.
    """
    affinity = plan(os.environ)

    def on_first_release(foreign: float) -> None:
        if report is not None:
            report(describe_release(affinity.share, foreign))

    os.environ[_THREADS] = str(affinity.threads)
    if detect().size > 1:
        request_short_slices()
    if affinity.share:
        set_affinity(affinity.share)
        if not affinity.always:
            CoreMonitor(affinity.share, affinity.allowed, set_affinity, on_first_release).start()
    return affinity


def openmp_threads(environ: Optional[Mapping[str, str]] = None) -> int:
    """Return the number of threads that OMP_NUM_THREADS gives; 0 if it is unset or invalid for OpenMP.

    Raises:
        UserError: when it is a number of threads that no machine can start.
    """
    environ = os.environ if environ is None else environ
    text = environ.get(_THREADS, "")
    given = re.fullmatch(r"\s*0*([1-9][0-9]*)\s*(,[\s0-9]+)*", text)  # "4,2": 4 threads, 2 nested in each
    if given is None:
        return 0
    if len(given[1]) > len(str(MOST_THREADS)) or int(given[1]) > MOST_THREADS:
        raise UserError(
            f"{_THREADS}={text[:40]}: should be at most {MOST_THREADS} threads; unset it to use all cores",
            ExitStatus.BAD_CONFIG,
        )
    return int(given[1])


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
    if len(workers) <= _MAX_LISTED:
        return "cores: " + ", ".join(f"rank {rank} is {phrase}" for rank, phrase in enumerate(workers))
    pinned = sum(phrase.startswith("pinned") for phrase in workers)
    return f"cores: {pinned} of {len(workers)} workers are pinned to their share of their node's cores, see run.json"


def describe_release(share: FrozenSet[int], foreign: float) -> str:
    """Return one line about the release of a worker's cores, of which other processes use `foreign`."""
    rank = f"rank {detect().rank} on {socket.gethostname()}"
    return (
        f"note: {rank} is no longer pinned to {cores_text(share)}, because other processes use {foreign:.1f} of "
        f"{len(share)}; it will be pinned again when they are free"
    )


def cores_text(cores: FrozenSet[int]) -> str:
    """Return "core 3" or "cores 0-3, 8"."""
    return f"core{'s' if len(cores) > 1 else ''} {ranges_text(cores)}"


def ranges_text(numbers: Collection[int]) -> str:
    """Return "3" or "0-3, 8"."""
    runs: List[List[int]] = []
    for number in sorted(numbers):
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def _topology(cpu: int) -> Tuple[int, int, int]:
    """Return (socket, core, number), a sort key that puts the hardware threads of a core next to each other."""
    folder = Path(f"/sys/devices/system/cpu/cpu{cpu}/topology")
    try:
        package, core = (int((folder / name).read_text()) for name in ("physical_package_id", "core_id"))
    except (OSError, ValueError):
        package = core = 0
    return package, core, cpu
