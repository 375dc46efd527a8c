"""Rank and size of this process from the launcher's environment, before MXNet or MPI is loaded.

Horovod is the authority on rank and size once it runs. This module serves what is needed earlier (a worker is pinned to
its cores before MXNet is loaded) and detects a common failure: N processes that each form a world of one.
"""

import contextlib
import ctypes
import os
import re
import signal
import time
from dataclasses import dataclass
from typing import Mapping, Optional

LOOPBACK = "lo"  # Linux's network interface of a machine to itself
BEGAN = "LSTM_DIST_BEGAN"  # when the launcher began this attempt, in seconds since 1970

_LONGEST_START = 3600.0  # seconds from the start of a launcher to that of its workers

# (launcher, rank, size, local rank, local size), the most specific first: horovodrun --gloo sets its own variables, and
# an mpirun inside a Slurm step inherits those of the step.
LAUNCHER_VARIABLES = (
    ("horovodrun", "HOROVOD_RANK", "HOROVOD_SIZE", "HOROVOD_LOCAL_RANK", "HOROVOD_LOCAL_SIZE"),
    (
        "mpirun",
        "OMPI_COMM_WORLD_RANK",
        "OMPI_COMM_WORLD_SIZE",
        "OMPI_COMM_WORLD_LOCAL_RANK",
        "OMPI_COMM_WORLD_LOCAL_SIZE",
    ),
    ("mpiexec", "PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
    # SLURM_NTASKS is also set in a batch script that starts Python without srun; SLURM_STEP_NUM_TASKS only by srun.
    ("srun", "SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID", "SLURM_STEP_TASKS_PER_NODE"),
)


@dataclass(frozen=True)
class Launch:
    """One process as its launcher describes it; `name` is "none" for a plain `python jobs/train.py`."""

    name: str = "none"
    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1

    @property
    def is_one_host(self) -> bool:
        """Return whether all workers are on this host."""
        return self.local_size == self.size


def detect(environ: Optional[Mapping[str, str]] = None) -> Launch:
    """Read the launcher's variables: horovodrun, Open MPI's mpirun, MPICH's or Intel's mpiexec, srun, or none."""
    environ = os.environ if environ is None else environ
    for name, rank, size, local_rank, local_size in LAUNCHER_VARIABLES:
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit():
            return Launch(
                name,
                int(environ[rank]),
                int(environ[size]),
                _leading_int(environ.get(local_rank), 0),
                _leading_int(environ.get(local_size), 1),
            )
    return Launch()


def is_single() -> bool:
    """Return whether this process has no peers: its launcher started no other, or there is no launcher.

    A launcher that `detect` does not know looks like none; HOROVOD_CONTROLLER=mpi then says that MPI knows the peers.
    """
    launch = detect()
    return launch.size == 1 and (launch.name != "none" or os.environ.get("HOROVOD_CONTROLLER") != "mpi")


def began(environ: Optional[Mapping[str, str]] = None) -> float:
    """Return when this attempt at a job began, in seconds since 1970: when its launcher says, or this process did."""
    environ = os.environ if environ is None else environ
    started = time.time() - time.clock_gettime(time.CLOCK_BOOTTIME) + _ticks_at_start() / os.sysconf("SC_CLK_TCK")
    with contextlib.suppress(ValueError):
        said = float(environ.get(BEGAN, ""))
        # A variable of a launcher that has ended long ago says nothing about this attempt.
        if started - _LONGEST_START < said < started:
            return said
    return started


def _ticks_at_start() -> int:
    """Return when this process was started, in clock ticks since the start of the machine."""
    with open("/proc/self/stat", "rb") as file:
        return int(file.read().rpartition(b")")[2].split()[19])


def yield_while_waiting() -> None:
    """Make Open MPI yield the core in every round of polling; call it before MPI is started.

    Horovod's thread communicates with its peers a thousand times a second. Polling without yielding blocks computation
    on the same core, which halves the speed of two workers on two cores. The setting applies to MPI_Init, hvd.init and
    every other wait.
    """
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")


def die_with_parent(parent: int, number: int = signal.SIGTERM) -> None:
    """Make the kernel signal this process when its parent ends; end it if the parent has ended already.

    Args:
        parent: process id of the parent, taken before the fork of this child.
        number: of the signal.
    """
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, number)
    if os.getppid() != parent:
        os._exit(128 + number)  # not by the signal, for which a handler of the parent may still be installed


def _leading_int(value: Optional[str], default: int) -> int:
    """Return the first number of "4" or of Slurm's "4(x2),3"; nodes may differ, and the first has the most tasks."""
    match = re.match(r"\d+", value or "")
    return int(match.group()) if match else default
