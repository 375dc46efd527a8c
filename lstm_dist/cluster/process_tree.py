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
from typing import Collection, Dict, List, Optional, Sequence

from lstm_dist.attempt import ATTEMPT, Attempt
from lstm_dist.cluster.launch_env import die_with_parent
from lstm_dist.cluster.start_signals import handled_signals
from lstm_dist.errors import print_error

_ORPHANS = 30.0  # seconds for the workers of a killed supervisor to stop with a checkpoint
_UNKILLABLE = 5.0  # seconds after which a process that SIGKILL does not end is left: it waits for a device or a disk
_STALE = 2.0  # seconds to wait for the end of workers of earlier attempts
_SHARED_SSH = b"[mux]"  # ends the title of ssh's process that holds a connection for the user's other sessions


def adopt_orphans() -> None:
    """Make this process the parent of descendants whose own parent ends."""
    set_child_subreaper = 36  # PR_SET_CHILD_SUBREAPER
    ctypes.CDLL(None).prctl(set_child_subreaper, 1)


def descendants(but: Collection[int] = ()) -> List[int]:
    """Return the live processes that this process has started, directly or indirectly, ancestors first.

    Args:
        but: processes to leave out, with those that they have started.
    """
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
        found += [child for child in children.get(pid, []) if child not in but]
    return found[1:]


def command_line(pid: int) -> List[bytes]:
    """Return the command line of a process; empty if there is no such process."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[:-1]
    return []


def end_descendants(grace: float, but: Collection[int] = (), attempt: Optional[Attempt] = None) -> None:
    """End all descendants, by SIGTERM and, after `grace` seconds, by SIGKILL. No other code may wait for one of them.

    Args:
        grace: seconds between the two signals.
        but: processes to leave running, with those that they have started.
        attempt: leave other processes running than those of this attempt at a job; None for no such choice.
    """
    began, number = time.monotonic(), signal.SIGTERM
    left = _of_the_job(but, attempt)
    _signal_all(left, number)
    while left and time.monotonic() < began + grace + _UNKILLABLE:
        if number == signal.SIGTERM and time.monotonic() > began + grace:
            number = signal.SIGKILL
            _signal_all(left, number)
        time.sleep(0.05)
        for pid in left:
            with suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        left = _of_the_job(but, attempt)


def end_earlier_attempts(attempt: Attempt) -> None:
    """End by SIGKILL what earlier attempts at the same job have left running on this host, and wait for the end.

    Such processes occupy the memory and the cores of the next attempt until they find out that theirs is over.
    """
    began, left = time.monotonic(), _of_earlier_attempts(attempt)
    while left and time.monotonic() < began + _STALE:
        _signal_all(left, signal.SIGKILL)
        time.sleep(0.05)
        left = _of_earlier_attempts(attempt)


def _of_earlier_attempts(attempt: Attempt) -> List[int]:
    numbers = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
    return [pid for pid in numbers for other in [_attempt_of(pid)] if other is not None and other.precedes(attempt)]


def _attempt_of(pid: int) -> Optional[Attempt]:
    """Return the attempt that a process belongs to; None if it belongs to none, or is another user's."""
    prefix = os.fsencode(f"{ATTEMPT}=")
    with suppress(OSError):
        for variable in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0"):
            if variable.startswith(prefix):
                return Attempt.parse(os.fsdecode(variable[len(prefix) :]))
    return None


def _of_the_job(but: Collection[int], attempt: Optional[Attempt]) -> List[int]:
    """Return the descendants to end: those that belong to the job alone, and that this user may signal."""
    found = [pid for pid in descendants(but) if _may_signal(pid) and not _is_shared_ssh(pid)]
    return [pid for pid in found if attempt is None or _attempt_of(pid) == attempt]


def _is_shared_ssh(pid: int) -> bool:
    # The title replaces the command line, and zero bytes fill the rest of it.
    return b" ".join(command_line(pid)).rstrip().endswith(_SHARED_SSH)


def _may_signal(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:  # it has ended, or runs as another user
        return False
    return True


def _signal_all(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(OSError):
            os.kill(pid, number)


def continue_in_child() -> None:
    """Return in a child process; this process waits for its end, ends what it leaves behind, and exits as it did.

    So a SIGKILL of either process leaves nothing running: the child receives SIGTERM when this process ends. What the
    shell started before it became this process, such as `tee` for its output, is not of the job and continues.

    Raises:
        SystemExit: in this process, with the status of the child.
    """
    adopt_orphans()
    parent, others = os.getpid(), frozenset(descendants())
    child = os.fork()
    if not child:
        die_with_parent(parent)
        return

    def pass_on(number: int, _: Optional[FrameType]) -> None:
        with suppress(ProcessLookupError):
            os.kill(child, number)

    for number in handled_signals():
        signal.signal(number, pass_on)
    _, status = os.waitpid(child, 0)
    end_descendants(_ORPHANS, but=others)
    if os.WIFEXITED(status):
        sys.exit(os.WEXITSTATUS(status))
    number = os.WTERMSIG(status)
    if number not in handled_signals():  # else it was asked to end before it could handle the request
        print_error(
            f"the job's supervisor was ended by signal {number} ({signal.strsignal(number)}), and the job with it: "
            "resume the run with --resume and its --run-dir"
        )
    sys.exit(128 + number)
