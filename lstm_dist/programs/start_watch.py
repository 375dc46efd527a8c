"""The limits of horovodrun before its workers have begun, when there is no status of theirs yet."""

from typing import Sequence

from lstm_dist.cluster.process_tree import command_line, descendants

_LOOK_EVERY = 1.0  # seconds between two searches for the workers
_LEAST = 60.0  # seconds that a launcher always has to start a worker: imports from a busy file system are slow
_AFTER_WORKERS = 15.0  # seconds that a launcher has to end after its workers


class StartWatch:
    """Watches whether a launcher starts workers, and ends when they have ended."""

    def __init__(self, worker: Sequence[str], limit: float, is_local: bool, now: float) -> None:
        """Begin to watch.

        Args:
            worker: command line of a worker.
            limit: seconds that the launcher has to start a worker, if that is more than a minute.
            is_local: whether all workers are on this machine, so that they are visible here.
            now: in `time.monotonic` seconds.
        """
        self._worker, self._limit, self._is_local = [word.encode() for word in worker], max(_LEAST, limit), is_local
        self._looked = self._seen = now
        self._has_started = False

    def failure(self, now: float, has_spoken: bool) -> str:
        """Return why the launcher is to be killed; empty if it is not.

        Args:
            now: in `time.monotonic` seconds.
            has_spoken: whether the launcher or a worker has written a line; workers do so after 10 s at the latest.
        """
        if now < self._looked + _LOOK_EVERY:
            return ""
        self._looked = now
        if any(command_line(pid) == self._worker for pid in descendants()):
            self._seen, self._has_started = now, True
        elif self._has_started and now > self._seen + _AFTER_WORKERS:
            return f"horovodrun has not ended within {_AFTER_WORKERS:.0f} s after its workers"
        elif not self._has_started and (self._is_local or not has_spoken) and now > self._seen + self._limit:
            return f"horovodrun has started no worker within {self._limit:.0f} s"
        return ""
