"""The run directory: its creation, and a check that all hosts see it."""

import contextlib
import errno
import itertools
import os
import time
import uuid
from datetime import datetime
from pathlib import Path
from typing import NamedTuple, Optional

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import cannot_write

_VISIBLE_WITHIN = 10.0  # seconds


def new_run_dir() -> Path:
    """Create a folder under runs/ named after the current time, with a number if the name is taken.

    Raises:
        UserError: if it cannot be created.
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
                f"{path}: cannot be created ({error.strerror}); name a directory with --run-dir",
                ExitStatus.CANNOT_CREATE,
            ) from None
        break
    return path


def choose_run_dir(given: Optional[Path]) -> Path:
    """Return the given run directory, or a new one."""
    return given or new_run_dir()


def require_writable(run_dir: Path) -> None:
    """Check that a folder can be written or, if there is none, created; create nothing.

    Raises:
        UserError: naming --run-dir, if it cannot.
    """
    try:
        above = next(path for path in (run_dir, *run_dir.absolute().parents) if path.exists())
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror)) from None
    if not above.is_dir():
        raise cannot_write(run_dir, os.strerror(errno.ENOTDIR))
    if not os.access(above, os.W_OK | os.X_OK):
        raise cannot_write(run_dir, os.strerror(errno.EACCES))


class ProbeFile(NamedTuple):
    """A marker file by which other hosts check whether they see the same folder.

    Attributes:
        path: of the marker.
        is_folder_new: whether the folder was created for the marker.
    """

    path: Path
    is_folder_new: bool


def create_probe(run_dir: Path) -> ProbeFile:
    """Create a marker in `run_dir`.

    Raises:
        UserError: naming --run-dir, if it cannot be written.
    """
    mark = ProbeFile(run_dir.resolve() / f".seen-{uuid.uuid4().hex}", not run_dir.exists())
    try:
        run_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        mark.path.touch()
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror)) from None
    return mark


def is_visible(mark: Path) -> bool:
    """Return whether this host sees the marker, after waiting for a network file system to show it."""
    patience = time.monotonic() + _VISIBLE_WITHIN
    while not mark.exists() and time.monotonic() < patience:
        time.sleep(0.1)
    return mark.exists()


def remove_probe(mark: ProbeFile) -> None:
    """Remove the marker, and the folder if it was created for it."""
    with contextlib.suppress(OSError):
        mark.path.unlink()
        if mark.is_folder_new:
            mark.path.parent.rmdir()
