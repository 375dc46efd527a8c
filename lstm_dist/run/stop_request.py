"""Stop requests: a signal, a file, the time limit or the end of the launcher. Workers agree on them between steps."""

import contextlib
import math
import signal
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import Optional, Type

from lstm_dist.cluster.launcher_watch import LauncherProcess
from lstm_dist.cluster.start_signals import handled_signals

FILE = "STOP"
PLANNED = "to continue on other workers"  # content of the file of a program that starts the job again at once
LAUNCHER_ENDED = "the end of horovodrun"
_LOOK_EVERY = 0.5  # seconds between two checks of file and launcher, as shared file systems are slow


class StopRequest:
    """Context manager in which SIGNALS only set `reason`; the run polls `is_requested`.

    The handler must not raise: one time in twenty it would run inside MXNet, which loses exceptions in the `__del__`
    of an array. Also, a rank that ended alone would leave the others waiting.

    Attributes:
        reason: the first signal or other cause; empty if there is none.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._file: Optional[Path] = None
        self._deadline = math.inf
        self._looked = 0.0
        self._launcher = LauncherProcess()

    def watch(self, folder: Path, deadline: float) -> None:
        """Also stop if `folder` contains a file STOP, and at `deadline`, in `time.monotonic` seconds."""
        self._file, self._deadline = folder / FILE, deadline

    def remove_file(self) -> None:
        """Remove the file, so that it does not stop the resumed run."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    def is_requested(self) -> bool:
        """Return whether this worker requests a stop."""
        now = time.monotonic()
        if not self.reason and now >= self._deadline:
            self.reason = "--time-limit"
        if not self.reason and now >= self._looked + _LOOK_EVERY:
            self._looked = now
            if self._file is not None and self._file.exists():
                self.reason = f"the file {FILE}{_content(self._file)}"
            elif self._launcher.has_ended():
                self.reason = LAUNCHER_ENDED
        return bool(self.reason)

    def _handle(self, number: int, _: Optional[FrameType]) -> None:
        self.reason = self.reason or signal.Signals(number).name

    def __enter__(self) -> "StopRequest":
        self._previous = {number: signal.signal(number, self._handle) for number in handled_signals()}
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for number, handler in self._previous.items():
            # A launcher signals the remaining ranks once the first has ended; ignore it to keep their own exit status.
            signal.signal(number, signal.SIG_IGN if isinstance(error, SystemExit) else handler)


def remove_planned(folder: Path) -> None:
    """Remove the request of a program that was killed after it, before it could start the job again.

    Call it before this attempt is known to run, as such programs ask only jobs that do.
    """
    with contextlib.suppress(OSError):
        if (folder / FILE).read_text(encoding="utf-8", errors="replace") == PLANNED:
            (folder / FILE).unlink()


def _content(file: Path) -> str:
    """Return the content of a stop file in parentheses; empty if there is none."""
    with contextlib.suppress(OSError):
        word = file.read_text(encoding="utf-8", errors="replace")[:80].strip()
        return f" ({word})" if word else ""
    return ""
