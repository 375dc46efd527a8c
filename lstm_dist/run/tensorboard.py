"""TensorBoard event files with a run's epochs and samples."""

import time
from pathlib import Path
from typing import Any, Dict

from lstm_dist.errors import ExitStatus, UserError


def require_writer() -> None:
    """Check that tensorboardX is installed.

    Raises:
        UserError: naming --tensorboard, if it is not.
    """
    try:
        import tensorboardX  # noqa: F401
    except ImportError:
        raise UserError(
            "--tensorboard: its writer is not installed: run .venv/bin/pip install -e '.[tensorboard]'",
            ExitStatus.NO_INPUT,
        ) from None


class Events:
    """The event file of one part of a run; written synchronously, because a full disk would end a writer thread."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        """Create the event file.

        Args:
            folder: of the event files.
            first_epoch: of this part; TensorBoard discards earlier parts' events from this epoch on.

        Raises:
            OSError: if it cannot be written; the other methods raise it too.
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
        """Write the numbers of an epoch, by name."""
        for name, value in numbers.items():
            self._write(epoch, self._summary.scalar(name, value))
        self._writer.flush()

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """Write a sample."""
        self._write(epoch, self._summary.text(f"sample/{prefix}", text))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _write(self, epoch: int, summary: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=epoch, summary=summary))
