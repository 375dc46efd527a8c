"""The processes that a launcher has started, directly and indirectly: who they are, and their end with the supervisor.

A launcher may end before its helpers and workers, or be killed, and some of them then wait forever. Linux gives such
orphans to the nearest ancestor that has asked for them, so the supervisor finds them among its descendants.
"""

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Dict, List, Optional, Sequence

from lstm_dist.cluster.launch_env import die_with_parent
from lstm_dist.cluster.start_signals import handled_signals

_ORPHANS = 30.0  # seconds for the workers of a killed supervisor to stop with a checkpoint
_UNKILLABLE = 5.0  # seconds after which a process that SIGKILL does not end is left: it waits for a device or a disk
_SHARED_SSH = b"[mux]"  # ends the title of ssh's process that holds a connection for the user's other sessions


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends."""
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def descendants() -> List[int]:
    """Return the live processes that this process has started, directly or indirectly, ancestors first."""
    children: Dict[int, List[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError):  # it has just ended
                # Split at the last parenthesis, because the program's name may itself contain parentheses.
                state, parent, *_ = (entry / "stat").read_text(errors="replace").rpartition(")")[2].split()
                if state not in "ZX":
                    children.setdefault(int(parent), []).append(int(entry.name))
    found = [os.getpid()]
    for pid in found:
        found += children.get(pid, [])
    return found[1:]


def command_line(pid: int) -> List[bytes]:
    """Return the command line of a process; empty if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return []


def end_descendants(grace: float) -> None:
    """End all descendants, by SIGTERM and, after `grace` seconds, by SIGKILL. No other code may wait for a child."""
    began, number = time.monotonic(), signal.SIGTERM
    _signal_all(_unshared(), number)
    while _unshared() and time.monotonic() < began + grace + _UNKILLABLE:
        if number == signal.SIGTERM and time.monotonic() > began + grace:
            number = signal.SIGKILL
            _signal_all(_unshared(), number)
        time.sleep(0.05)
        with suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass


def _unshared() -> List[int]:
    """Return the descendants that belong to the job alone."""
    return [pid for pid in descendants() if not b" ".join(command_line(pid)).endswith(_SHARED_SSH)]


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def continue_in_child() -> None:
    """Return in a child process; this process waits for its end, ends what it leaves behind, and exits as it did.

    So a SIGKILL of either process leaves nothing running: the child receives SIGTERM when this process ends.

    Raises:
        SystemExit: in this process, with the status of the child.
    """
    adopt_orphans()
    child = os.fork()
    if not child:
        die_with_parent()
        return

    def pass_on(number: int, _: Optional[FrameType]) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in handled_signals():
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    end_descendants(_ORPHANS)
    sys.exit(os.WEXITSTATUS(status) if os.WIFEXITED(status) else 128 + os.WTERMSIG(status))
