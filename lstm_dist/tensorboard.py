"""A run's epochs and samples as event files, for those who watch them with TensorBoard."""

from pathlib import Path
from typing import Any, Dict

from lstm_dist.errors import ExitStatus, UserError


class Events:
    """The event files of one part of a run."""

    def __init__(self, folder: Path, first_epoch: int) -> None:
        """Begin to write.

        Args:
            folder: of the event files.
            first_epoch: that this part tells of: what an earlier part said of it and later ones no longer counts.

        Raises:
            UserError: naming --tensorboard, when the writer is not installed.
        """
        try:
            from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
        except ImportError:
            raise UserError(
                "--tensorboard: its writer is not installed: say .venv/bin/pip install -e '.[tensorboard]'",
                ExitStatus.NO_INPUT,
            ) from None
        self._writer: Any = SummaryWriter(str(folder), purge_step=first_epoch)

    def epoch(self, epoch: int, numbers: Dict[str, float]) -> None:
        """Numbers of an epoch, by name."""
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, epoch)
        self._writer.flush()

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """A sample."""
        self._writer.add_text(f"sample/{prefix}", text, epoch)

    def close(self) -> None:
        """Bring everything to the files."""
        self._writer.close()
