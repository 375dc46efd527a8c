"""The watchdog: a worker that has not moved for too long ends itself, says where it was, and so ends the job.

So does one that is still connecting when its launcher has gone. Neither Horovod nor MPI does this: under Gloo
Horovod's stall inspector never fires, and under MPI nobody notices a rank that is frozen. Two timers, because a thread
cannot run while another one keeps Python's lock, and faulthandler's, which can, knows no better status than 1 and
writes no files.
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

from lstm_dist.cluster.launcher_watch import Owner
from lstm_dist.errors import ExitStatus, print_error

STARTING = 300.0  # seconds that the start may take before the configuration is known
# Times the limit: what the root does alone, while the others wait for it, may take longer than a step.
PHASES = {"start": 1.0, "step": 1.0, "samples": 3.0, "checkpoint": 3.0}
_REARM_EVERY = 0.25  # seconds between two moves of faulthandler's timer, each of which costs 40 us
_LAST_WORDS = 10.0  # seconds that the end of a stuck worker may take

_STDERR = 2

OnStall = Callable[[str, ExitStatus], None]


class Watchdog:
    """Runs from `__enter__` on; everything that moves calls `beat`.

    Attributes:
        limit: seconds without a beat after which the process ends, times the phase's factor.
        on_stall: told the message and the status before the end.
        step: the last that was finished, as far as it was told.
    """

    def __init__(self, limit: float = STARTING) -> None:
        self.limit = limit
        self.on_stall: Optional[OnStall] = None
        self.step = 0
        self._phase = "start"
        self._last = time.monotonic()
        self._armed = 0.0
        self._over = threading.Event()
        self._watched = threading.main_thread().ident
        self._owner = Owner()

    def beat(self, phase: str, step: int = 0) -> None:
        """Something has moved, `step` is finished, and what comes next is `phase`, one of PHASES."""
        self.step = step
        self._last, changed, self._phase = time.monotonic(), phase != self._phase, phase
        if changed or self._last > self._armed + min(_REARM_EVERY, self.limit / 10):
            self._armed = self._last
            faulthandler.dump_traceback_later(self._allowed() + 2 * _REARM_EVERY, exit=True, file=_STDERR)

    def _allowed(self) -> float:
        return self.limit * PHASES[self._phase]

    def _watch(self) -> None:
        looked = time.monotonic()
        while not self._over.wait(min(_REARM_EVERY, self.limit / 10)):
            before, looked = looked, time.monotonic()
            still = looked - self._last
            if self._phase == "start" and self._owner.has_ended():  # while it connects, it looks for nothing itself
                print_error(f"a worker on {socket.gethostname()} ends, as horovodrun has ended")
                os._exit(ExitStatus.PEER_LOST)
            if still > self._allowed():
                self._bark(still, frozen=looked - before > self._allowed() / 2)

    def _bark(self, seconds: float, frozen: bool) -> None:
        waits = not frozen and _waits_for_others(sys._current_frames().get(self._watched or 0))
        where = "waits for its device or another rank" if waits else "is stuck in its own code"
        if frozen:
            where = "was itself frozen, as by SIGSTOP, a suspended machine or a held lock of Python"
        message = f"no {self._phase} for {seconds:.0f} s (--stall-timeout {self.limit:g}): it {where}"
        status = ExitStatus.PEER_LOST if waits else ExitStatus.INTERNAL
        # What is told may be stuck where the rank is, on a disk that does not answer: the other timer gives it a while.
        faulthandler.dump_traceback_later(_LAST_WORDS, exit=True, file=_STDERR)
        try:
            faulthandler.dump_traceback(file=_STDERR)
            print_error(f"a rank on {socket.gethostname()}: {message}")
            if self.on_stall:
                self.on_stall(message, status)
        finally:
            os._exit(status)

    def __enter__(self) -> "Watchdog":
        # A crash inside of MXNet or Horovod says where Python was, and is the end. MXNet's own handlers call exit,
        # which waits for threads that wait for Python's lock, which the crashed thread may hold: at times, a hang.
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
    """Whether a thread is inside of MXNet or Horovod, where it waits for a device or for other ranks."""
    module = "" if frame is None else str(frame.f_globals.get("__name__"))
    return module.split(".")[0] in ("mxnet", "horovod", "mpi4py")
