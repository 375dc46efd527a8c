"""Why a run is asked to stop: a signal, a file, the end of its time or of its launcher. Agreed between two steps."""

import contextlib
import math
import signal
import time
from pathlib import Path
from types import FrameType, TracebackType
from typing import List, Optional, Type

from lstm_dist.cluster.launcher_watch import Owner

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP)
FILE = "STOP"
LAUNCHER_ENDED = "the end of horovodrun"
_LOOK_EVERY = 0.5  # seconds between two looks for file and launcher: a shared file system answers slowly


def heeded() -> List[int]:
    """Those of SIGNALS that this process is to heed: not SIGHUP under nohup, which asks to outlive its terminal."""
    return [n for n in SIGNALS if n != signal.SIGHUP or signal.getsignal(n) is not signal.SIG_IGN]


class Stop:
    """While it is entered, the SIGNALS only leave a word here; `asked` is where the run looks.

    A handler that did more, or raised, would do so inside MXNet one time in twenty, which loses exceptions in the
    `__del__` of an array; and a rank that left by itself would leave the others waiting.

    Attributes:
        reason: the first signal or other cause, empty while there is none.
    """

    def __init__(self) -> None:
        self.reason = ""
        self._file: Optional[Path] = None
        self._deadline = math.inf
        self._looked = 0.0
        self._owner = Owner()

    def watch(self, folder: Path, deadline: float) -> None:
        """Stop for a file STOP in `folder` as well, and at `deadline`, a moment of `time.monotonic`."""
        self._file, self._deadline = folder / FILE, deadline

    def forget(self) -> None:
        """Remove the file, so that it does not stop the next part of the run."""
        if self._file is not None:
            with contextlib.suppress(OSError):
                self._file.unlink(missing_ok=True)

    def asked(self) -> bool:
        """Whether this worker wants the run to stop."""
        now = time.monotonic()
        if not self.reason and now >= self._deadline:
            self.reason = "--time-limit"
        if not self.reason and now >= self._looked + _LOOK_EVERY:
            self._looked = now
            if self._file is not None and self._file.exists():
                self.reason = f"the file {FILE}{_whose(self._file)}"
            elif self._owner.has_ended():
                self.reason = LAUNCHER_ENDED
        return bool(self.reason)

    def _notice(self, number: int, _: Optional[FrameType]) -> None:
        self.reason = self.reason or signal.Signals(number).name

    def __enter__(self) -> "Stop":
        self._previous = {number: signal.signal(number, self._notice) for number in heeded()}
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        for number, handler in self._previous.items():
            # A launcher tells the last ranks to end as soon as the first one has: they end with a status of their own.
            signal.signal(number, signal.SIG_IGN if isinstance(error, SystemExit) else handler)


def _whose(file: Path) -> str:
    """What whoever made a file has written into it, in parentheses."""
    with contextlib.suppress(OSError):
        word = file.read_text(encoding="utf-8", errors="replace")[:80].strip()
        return f" ({word})" if word else ""
    return ""
