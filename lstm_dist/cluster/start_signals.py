"""Signals that arrive while a program starts: they end it at once, whatever it is waiting for."""

import os
import signal
import sys
import threading
import time
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Iterator, List, NoReturn, Optional, Type

from lstm_dist.cluster.launch_env import detect

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
_WAIT = 10.0  # seconds, more than the thread needs on a busy machine
_KILLED = 128  # added to the signal's number in the exit status, as by a shell


def handled_signals() -> List[int]:
    """Return those of SIGNALS to handle: all but SIGHUP under nohup, where the process must outlive its terminal."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]


class EndOnSignal:
    """Context manager in which any of SIGNALS ends the process, with one line and status 128 plus its number.

    A thread does this. A handler in Python runs only between two instructions of the main thread, which may be inside
    a library that waits for another worker. A child that is forked inside shares the pipe to the thread until it
    executes another program: a signal to that child alone ends this process too.
    """

    def __enter__(self) -> "EndOnSignal":
        reader, self._writer = os.pipe()
        os.set_blocking(self._writer, False)
        threading.Thread(target=_end_on, args=(reader,), name="start-signals", daemon=True).start()
        self._previous_writer = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        self._previous = {number: signal.signal(number, _leave_to_the_thread) for number in handled_signals()}
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(self._previous_writer)
        os.close(self._writer)  # ends the thread


@contextmanager
def default_actions() -> Iterator[None]:
    """Wrap a call that holds Python's lock, so that no thread can run: SIGNALS have their default action, the end."""
    previous = {number: signal.signal(number, signal.SIG_DFL) for number in handled_signals()}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def _leave_to_the_thread(_: int, __: Optional[FrameType]) -> None:
    """Wait in the main thread: Python has written the number to the pipe, and the thread that reads it ends both."""
    time.sleep(_WAIT)


def _end_on(reader: int) -> None:
    """End the process when the number of a signal can be read; return when the pipe is closed."""
    with os.fdopen(reader, "rb", buffering=0) as numbers:
        number = numbers.read(1)
        if number:
            _end(number[0])


def _end(number: int) -> NoReturn:
    try:
        if detect().rank == 0:
            sys.stderr.write(f"stopped by {signal.Signals(number).name} while starting\n")
            sys.stderr.flush()
    finally:
        os._exit(_KILLED + number)
