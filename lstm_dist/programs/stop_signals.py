"""The signals with which a user stops a supervised job."""

import signal
from typing import Optional

from lstm_dist.cluster.start_signals import handled_signals
from lstm_dist.programs.launcher_job import LauncherJob


class StopSignals:
    """Handler of the signals that request a stop: it keeps the first, and passes signals on to the current attempt."""

    def __init__(self) -> None:
        self._first: Optional[int] = None
        self._job: Optional[LauncherJob] = None
        for number in handled_signals():
            signal.signal(number, self._handle)

    @property
    def is_stopping(self) -> bool:
        """Return whether a signal has arrived."""
        return self._first is not None

    def forward_to(self, job: LauncherJob) -> None:
        """Pass signals on to this attempt, including one that has already arrived."""
        self._job = job
        if self._first is not None:
            job.stop(self._first)

    def _handle(self, number: int, _: object) -> None:
        self._first = self._first or number
        if self._job is not None:
            self._job.stop(self._first)
