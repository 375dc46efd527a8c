"""Detection that the launcher process of a horovodrun worker has ended."""

import os
from pathlib import Path
from typing import List

from lstm_dist.cluster.launch_env import ATTEMPT, detect


class Owner:
    """The ancestor process of a horovodrun worker whose end means that the worker is orphaned.

    Under `--mpi` it is the shell that runs mpirun: a signal to horovodrun ends that shell but does not reach mpirun.
    Under `--gloo` it is horovodrun's helper for this worker, or sshd on another host.
    """

    def __init__(self) -> None:
        self._pid = 0
        try:
            self._pid = parent_of(os.getppid())
            command, parent = _command(self._pid), _command(os.getppid())
        except OSError:
            command, parent = [], []
        runs_mpirun = command[1:2] == [b"-c"] and command[2].startswith(b"mpirun ")
        is_gloo = detect().name == "horovodrun"
        self._exists = runs_mpirun or (is_gloo and bool(command))
        # If the owner ended while this worker was starting, init has become the ancestor instead.
        by_horovodrun = any(b"horovodrun" in word for word in command)
        by_mpirun = ATTEMPT in os.environ and parent[:1] == [b"mpirun"]
        self._has_ended = self._pid <= 1 and ((is_gloo and not by_horovodrun) or by_mpirun)

    def has_ended(self) -> bool:
        """Return whether the owner existed and has ended."""
        try:
            return self._has_ended or (self._exists and parent_of(os.getppid()) != self._pid)
        except OSError:
            return True


def _command(pid: int) -> List[bytes]:
    """Return the command line of a process; raise OSError if there is none."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def parent_of(pid: int) -> int:
    """Return the id of a process's parent; raise OSError if there is no such process."""
    # Split at the last parenthesis, because the program's name may itself contain spaces and parentheses.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
