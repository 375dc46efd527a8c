"""Whether the process above a worker that owns it still lives."""

import os
from pathlib import Path
from typing import List

from lstm_dist.cluster.launch_env import ATTEMPT, detect


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


def _command(pid: int) -> List[bytes]:
    """The command line of a process; OSError when there is no such process."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def _parent(pid: int) -> int:
    """The process id of a process's parent; OSError when there is no such process."""
    # The program's name, in parentheses, may hold spaces and parentheses of its own.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
