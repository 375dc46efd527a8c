"""What the launcher's environment says about this process, before MXNet or any MPI is loaded.

Horovod is the authority on rank and size once it runs; this file is for what has to be known earlier (a worker is
pinned to its cores before MXNet is loaded) and for the classic mistake, N processes that each believe to be alone.
"""

import ctypes
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import List, Mapping, Optional

from lstm_dist.status import ATTEMPT

# (launcher, rank, size, local rank, local size), the surest sign first: horovodrun --gloo sets its own variables, and
# an mpirun inside a Slurm step inherits that step's.
_SIGNS = (
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


def detect(environ: Optional[Mapping[str, str]] = None) -> Launch:
    """Read the launcher's variables: horovodrun, Open MPI's mpirun, MPICH's or Intel's mpiexec, srun, or none."""
    environ = os.environ if environ is None else environ
    for name, rank, size, local_rank, local_size in _SIGNS:
        if environ.get(rank, "").isdigit() and environ.get(size, "").isdigit():
            return Launch(
                name,
                int(environ[rank]),
                int(environ[size]),
                _leading_int(environ.get(local_rank), 0),
                _leading_int(environ.get(local_size), 1),
            )
    return Launch()


def yield_while_waiting() -> None:
    """Have Open MPI give up the core in every round of polling; call it before MPI is started.

    Horovod's thread asks its peers for news a thousand times a second. While it waits for theirs, it would keep from
    computing whoever computes on the same core: half the speed of two workers on two cores. It holds for MPI_Init, for
    hvd.init, and wherever a rank waits.
    """
    os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")


class Owner:
    """The process above a worker of horovodrun that owns it: when that has gone, nobody does.

    Under `--mpi` it is the shell that runs mpirun: a signal to horovodrun ends that shell and never reaches mpirun.
    Under `--gloo` it is horovodrun's helper for this worker, or on another host the sshd.
    """

    def __init__(self) -> None:
        self._pid = 0
        try:
            self._pid = _parent(os.getppid())
            command, parent = _command(self._pid), _command(os.getppid())
        except OSError:
            command, parent = [], []
        runs_mpirun = command[1:2] == [b"-c"] and command[2].startswith(b"mpirun ")
        is_gloo = detect().name == "horovodrun"
        self._exists = runs_mpirun or (is_gloo and bool(command))
        # Where this worker was still starting when it went, the first process of the machine has taken over.
        by_horovodrun = any(b"horovodrun" in word for word in command)
        by_mpirun = ATTEMPT in os.environ and parent[:1] == [b"mpirun"]
        self._has_ended = self._pid <= 1 and ((is_gloo and not by_horovodrun) or by_mpirun)

    def has_ended(self) -> bool:
        """Whether it was there and is no more."""
        try:
            return self._has_ended or (self._exists and _parent(os.getppid()) != self._pid)
        except OSError:
            return True


def die_with_parent(number: int = signal.SIGTERM) -> None:
    """Have the kernel send this process a signal when its parent ends; called in a child that was just forked."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, number)


def _command(pid: int) -> List[bytes]:
    """The command line of a process; OSError when there is no such process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _parent(pid: int) -> int:
    """The process id of a process's parent; OSError when there is no such process."""
    # The program's name, in parentheses, may hold spaces and parentheses of its own.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])


def _leading_int(value: Optional[str], default: int) -> int:
    """The first number of "4" or of Slurm's "4(x2),3": nodes of one step may differ, the first is the fullest."""
    match = re.match(r"\d+", value or "")
    return int(match.group()) if match else default
