"""A run's epochs and samples as event files, for those who watch them with TensorBoard."""

import time
from pathlib import Path
from typing import Any, Dict

from lstm_dist.errors import ExitStatus, UserError


def require_writer() -> None:
    """Refuse to begin without it.

    Raises:
        UserError: naming --tensorboard, when it is not installed.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard: its writer is not installed: say .venv/bin/pip install -e '.[tensorboard]'",
            ExitStatus.NO_INPUT,
        ) from None


class Events:
    """The event file of one part of a run; written at once, without a thread that a full disk would end."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        """Begin one.

        Args:
            folder: of the event files.
            first_epoch: that this part tells of: what an earlier part said of it and later ones no longer counts.

        Raises:
            OSError: when it cannot be written; so do all that follow.
        """
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._summary, self._event = summary, Event
        folder.mkdir(exist_ok=True, mode=0o700)
        self._writer: Any = EventsWriter(str(folder / "events"), f".{first_epoch}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=first_epoch, session_log=start))
        self._writer.flush()

    def epoch(self, epoch: int, numbers: Dict[str, float]) -> None:
        """Numbers of an epoch, by name."""
        for name, value in numbers.items():
            self._write(epoch, self._summary.scalar(name, value))
        self._writer.flush()

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """A sample."""
        self._write(epoch, self._summary.text(f"sample/{prefix}", text))

    def close(self) -> None:
        """Bring everything to the file."""
        self._writer.close()

    def _write(self, epoch: int, summary: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=epoch, summary=summary))
