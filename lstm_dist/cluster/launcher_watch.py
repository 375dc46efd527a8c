"""Detection that the launcher process of a horovodrun worker has ended."""

import os
from pathlib import Path
from typing import List, NamedTuple

from lstm_dist.attempt import ATTEMPT
from lstm_dist.cluster.launch_env import detect


class LauncherProcess:
    """The launcher's process that started a horovodrun worker: the parent of its parent.

    Under `--mpi` it is the shell that runs mpirun: a signal to horovodrun ends that shell but does not reach mpirun.
    Under `--gloo` it is horovodrun's helper for this worker, or sshd on another host. Without horovodrun there is none.
    """

    def __init__(self) -> None:
        ancestors = _Ancestors.read()
        self._pid = ancestors.grandparent_pid
        self._exists = ancestors.is_mpirun_shell() or ancestors.is_gloo_helper()
        self._ended_before_start = ancestors.lost_launcher()

    def has_ended(self) -> bool:
        """Return whether the launcher's process existed and has ended."""
        if self._ended_before_start:
            return True
        try:
            return self._exists and parent_of(os.getppid()) != self._pid
        except OSError:
            return True


class _Ancestors(NamedTuple):
    """The two nearest ancestors of a worker, as it starts.

    Attributes:
        grandparent_pid: 0 if it is unknown.
        grandparent, parent: command lines; empty if they cannot be read.
    """

    grandparent_pid: int
    grandparent: List[bytes]
    parent: List[bytes]

    @classmethod
    def read(cls) -> "_Ancestors":
        """Read them from /proc."""
        pid = 0
        try:
            pid = parent_of(os.getppid())
            return cls(pid, _command(pid), _command(os.getppid()))
        except OSError:
            return cls(pid, [], [])

    def is_mpirun_shell(self) -> bool:
        """Return whether the grandparent is the shell in which `horovodrun --mpi` runs mpirun."""
        return self.grandparent[1:2] == [b"-c"] and self.grandparent[2].startswith(b"mpirun ")

    def is_gloo_helper(self) -> bool:
        """Return whether the grandparent has started this worker for `horovodrun --gloo`."""
        return _is_under_gloo() and bool(self.grandparent)

    def lost_launcher(self) -> bool:
        """Return whether the launcher's process ended while this worker was starting, so that init took its place."""
        if self.grandparent_pid > 1:
            return False
        gloo_helper_ended = _is_under_gloo() and not any(b"horovodrun" in word for word in self.grandparent)
        mpirun_shell_ended = ATTEMPT in os.environ and self.parent[:1] == [b"mpirun"]
        return gloo_helper_ended or mpirun_shell_ended


def _is_under_gloo() -> bool:
    """Return whether `horovodrun --gloo` has started this worker; under `--mpi` it looks like one of mpirun."""
    return detect().name == "horovodrun"


def _command(pid: int) -> List[bytes]:
    """Return the command line of a process; raise OSError if there is none."""
    return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")


def parent_of(pid: int) -> int:
    """Return the id of a process's parent; raise OSError if there is no such process."""
    # Split at the last parenthesis, because the program's name may itself contain spaces and parentheses.
    return int(Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[1])
