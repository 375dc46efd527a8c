"""TensorBoard event files with a run's epochs and samples and, in a folder of their own, its reports of steps.

One folder has one axis, because a resumed run discards the earlier events there from a position on.
"""

import time
from pathlib import Path
from typing import Any, Dict, Optional

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


STEPS = "steps"  # folder of the reports


class Events:
    """The event files of one part of a run."""

    def __init__(self, folder: Path, first_epoch: int, first_step: int) -> None:
        """Create the file of the epochs; that of the reports is created with the first one.

        Args:
            folder: of the event files.
            first_epoch: of this part.
            first_step: that its reports cover.

        Raises:
            OSError: if it cannot be written; the other methods raise it too.
        """
        self._folder, self._first_step = folder, first_step
        self._epochs = _EventFile(folder, first_epoch)
        self._steps: Optional[_EventFile] = None

    def epoch(self, epoch: int, numbers: Dict[str, float]) -> None:
        """Write the numbers of an epoch, by name."""
        self._epochs.numbers(epoch, numbers)

    def report(self, step: int, numbers: Dict[str, float]) -> None:
        """Write the numbers of a report after this step, by name."""
        if self._steps is None:
            self._steps = _EventFile(self._folder / STEPS, self._first_step)
        self._steps.numbers(step, {f"{STEPS}/{name}": value for name, value in numbers.items()})

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """Write a sample."""
        self._epochs.text(epoch, f"sample/{prefix}", text)

    def close(self) -> None:
        """Flush and close the files."""
        for file in (self._epochs, self._steps):
            if file is not None:
                file.close()


class _EventFile:
    """One event file; written synchronously, because a full disk would end a writer thread."""

    def __init__(self, folder: Path, first: int) -> None:
        """Create the file; TensorBoard discards the events of earlier files from position `first` on."""
        from tensorboardX import summary
        from tensorboardX.event_file_writer import EventsWriter
        from tensorboardX.proto.event_pb2 import Event, SessionLog

        self._summary, self._event = summary, Event
        folder.mkdir(exist_ok=True, mode=0o700)
        self._writer: Any = EventsWriter(str(folder / "events"), f".{first}")
        start = SessionLog(status=SessionLog.START)
        self._writer.write_event(Event(wall_time=time.time(), step=first, session_log=start))
        self._writer.flush()

    def numbers(self, position: int, numbers: Dict[str, float]) -> None:
        """Write numbers, by name."""
        for name, value in numbers.items():
            self._write(position, self._summary.scalar(name, value))
        self._writer.flush()

    def text(self, position: int, name: str, text: str) -> None:
        """Write a text."""
        self._write(position, self._summary.text(name, text))

    def close(self) -> None:
        """Flush and close the file."""
        self._writer.close()

    def _write(self, position: int, summary: Any) -> None:
        self._writer.write_event(self._event(wall_time=time.time(), step=position, summary=summary))
