"""A run's directory: made, and one job's at a time."""

import contextlib
import itertools
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Optional

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import cannot_write

_VISIBLE_WITHIN = 10.0  # seconds


def new_run_dir() -> Path:
    """Make a folder under runs/ that is named after the moment; numbered where another run began in the same second.

    Raises:
        UserError: when it cannot be made.
    """
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = Path("runs") / (moment if number == 1 else f"{moment}-{number}")
        try:
            path.mkdir(parents=True, mode=0o700)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(
                f"{path}: cannot be made ({error.strerror}); give a folder with --run-dir", ExitStatus.CANNOT_CREATE
            ) from None
        break
    return path


def choose_run_dir(given: Optional[Path]) -> Path:
    """The given one, or a new one."""
    return given or new_run_dir()


class Mark(NamedTuple):
    """A file by which other hosts tell whether they see the same folder.

    Attributes:
        path: its own.
        is_folder_new: whether the folder was made for it.
    """

    path: Path
    is_folder_new: bool


def leave_mark(run_dir: Path) -> Mark:
    """Put one into `run_dir`.

    Raises:
        UserError: naming --run-dir, when it cannot be written.
    """
    mark = Mark(run_dir.resolve() / f".seen-{uuid.uuid4().hex}", not run_dir.exists())
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.path.touch()
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror)) from None
    return mark


def is_seen(mark: Path) -> bool:
    """Whether this host sees it: network file systems may take a while to show what another host has made."""
    patience = time.monotonic() + _VISIBLE_WITHIN
    while not mark.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    return mark.exists()


def remove_mark(mark: Mark) -> None:
    """Remove it, and the folder that was made for it."""
    with contextlib.suppress(OSError):
        mark.path.unlink()
        if mark.is_folder_new:
            mark.path.parent.rmdir()
