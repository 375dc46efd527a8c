"""The watchdog: ends a worker without progress, and thereby the job, after reporting where it was.

It also ends a worker that is still connecting after its launcher has ended. Neither Horovod nor MPI does this: under
Gloo, Horovod's stall inspector never fires, and MPI does not detect a frozen rank. There are two timers, because a
Python thread cannot run while another one holds the GIL, and faulthandler's timer, which can, exits with status 1 only
and writes no files.
"""

import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from types import FrameType, TracebackType
from typing import Callable, Optional, Type

from lstm_dist.cluster.launcher_watch import LauncherProcess
from lstm_dist.errors import ExitStatus, print_error

STARTING = 300.0  # seconds allowed for the start, until the configuration is known
# Factors of the limit: work of the root for which the others wait may take longer than a step.
PHASES = {"start": 1.0, "step": 1.0, "samples": 3.0, "validation": 3.0, "checkpoint": 3.0}
_REARM_EVERY = 0.25  # seconds between two resets of faulthandler's timer, each of which costs 40 us
_LAST_WORDS = 10.0  # seconds allowed for the final report of a stuck worker

_STDERR = 2

OnStall = Callable[[str, ExitStatus], None]


class Watchdog:
    """Context manager that ends the process if `beat` is not called in time.

    Attributes:
        step: the last finished step that was reported.
    """

    def __init__(self, limit: float = STARTING) -> None:
        """Make the watchdog.

        Args:
            limit: allowed seconds without a beat, multiplied by the phase's factor.
        """
        self._limit = limit
        self._on_stall: Optional[OnStall] = None
        self._advice = ""
        self.step = 0
        self._phase = "start"
        self._last = time.monotonic()
        self._armed = 0.0
        self._over = threading.Event()
        self._watched = threading.main_thread().ident
        self._launcher = LauncherProcess()

    def allow(self, limit: float, step: int = 0) -> None:
        """Change the limit of a worker that has not begun training, and restart its time."""
        self._limit, self._armed = limit, 0.0  # resets faulthandler's timer as well
        self.beat("start", step)

    def report_to(self, on_stall: OnStall, advice: str = "") -> None:
        """Call `on_stall` with the message and the status before a stalled process ends.

        Args:
            on_stall: records them.
            advice: what to do about a device that does not answer; part of the message of a worker that waits.
        """
        self._on_stall, self._advice = on_stall, advice

    def beat(self, phase: str, step: int = 0) -> None:
        """Report progress: `step` is finished, and `phase`, one of PHASES, comes next."""
        self.step = step
        self._last, changed, self._phase = time.monotonic(), phase != self._phase, phase
        if changed or self._last > self._armed + min(_REARM_EVERY, self._limit / 10):
            self._armed = self._last
            faulthandler.dump_traceback_later(self._allowed() + 2 * _REARM_EVERY, exit=True, file=_STDERR)

    def _allowed(self) -> float:
        return self._limit * PHASES[self._phase]

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(min(_REARM_EVERY, self._limit / 10)):
            before, looked = looked, time.monotonic()
            still = looked - self._last
            if self._phase == "start" and self._launcher.has_ended():  # nothing else checks while connecting
                print_error(f"a worker on {socket.gethostname()} exits because horovodrun has ended")
                os._exit(ExitStatus.PEER_LOST)
            if still > self._allowed():
                self._report_stall(still, frozen=looked - before > self._allowed() / 2)

    def _report_stall(self, seconds: float, frozen: bool) -> None:
        waits = not frozen and _waits_for_others(sys._current_frames().get(self._watched or 0))
        where = "is waiting for its device or another rank" if waits else "is stuck in its own code"
        if frozen:
            where = "was suspended (SIGSTOP, a sleeping machine), or a thread of it held the GIL"
        if waits and self._advice:
            where += f"; {self._advice}"
        message = f"no {self._phase} for {seconds:.0f} s (--stall-timeout {self._limit:g}): it {where}"
        status = ExitStatus.PEER_LOST if waits else ExitStatus.INTERNAL
        # Reporting may block like the rank itself, as on an unresponsive disk, so faulthandler's timer limits it.
        faulthandler.dump_traceback_later(_LAST_WORDS, exit=True, file=_STDERR)
        try:
            faulthandler.dump_traceback(file=_STDERR)
            print_error(f"a rank on {socket.gethostname()}: {message}")
            if self._on_stall:
                self._on_stall(message, status)
        finally:
            os._exit(status)

    def __enter__(self) -> "Watchdog":
        # A crash in MXNet or Horovod must print Python's stack and end the process. MXNet's own handlers call exit,
        # which waits for threads that need the GIL; if the crashed thread holds it, the process hangs.
        for number in (signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE):
            signal.signal(number, signal.SIG_DFL)
        faulthandler.enable(file=_STDERR)
        self.beat("start")
        threading.Thread(target=self._watch, name="watchdog", daemon=True).start()
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self._over.set()
        faulthandler.cancel_dump_traceback_later()


def _waits_for_others(frame: Optional[FrameType]) -> bool:
    """Return whether a thread is inside MXNet, Horovod or MPI, where it waits for a device or for other ranks."""
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    return module.split(".")[0] in ("mxnet", "horovod", "mpi4py")
