"""The folder with a run's newest checkpoints, which are written atomically and durably."""

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import hard_link, is_superseded, partial_of, superseded, sync, sync_folder
from lstm_dist.run.checkpoint import Checkpoint, DamagedError, read, unpack

FOLDER = "checkpoints"  # in the run directory
KEEP = 3
_NAME = re.compile(r"step-(\d{9,})\.safetensors")
CORRUPT = ".corrupt"
BEST = "best.safetensors"  # the weights with the lowest validation loss
FINAL = "final.safetensors"  # the last checkpoint of a run that was trained to its end


class LoadedCheckpoint(NamedTuple):
    """A loaded checkpoint, and the reasons why newer ones were refused."""

    path: Path
    checkpoint: Checkpoint
    refused: List[str]


def step_of(path: Path) -> int:
    """Return the step in a checkpoint's name; -1 for any other file."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


def name_of(step: int) -> str:
    """Return the name of the checkpoint of a step."""
    return f"step-{step:09d}.safetensors"


class CheckpointDir:
    """The checkpoints in `folder`; used by the root of a job only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @classmethod
    def of_run(cls, run_dir: Path) -> "CheckpointDir":
        """Return the checkpoints in a run directory."""
        return cls(run_dir / FOLDER)

    def require(self) -> Path:
        """Return the folder.

        Raises:
            UserError: if it does not exist.
        """
        if not self.folder.is_dir():
            raise UserError(f"--run-dir {self.folder.parent}: has no run to resume", ExitStatus.NO_INPUT)
        return self.folder

    def paths(self) -> List[Path]:
        """Return the committed checkpoints, newest first."""
        whole = (path for path in self.folder.glob("step-*.safetensors") if step_of(path) >= 0)
        return sorted(whole, key=step_of, reverse=True)

    def has_any(self) -> bool:
        """Return whether there is a checkpoint, intact or damaged; a new run must not overwrite a damaged one."""
        return bool(self.paths()) or any(self.folder.glob(f"*{CORRUPT}*"))

    def commit(self, step: int, data: bytes) -> Path:
        """Write `data` as the checkpoint of `step` atomically, so that an intact checkpoint exists at any time.

        The file is written under a temporary name, synced, read back and renamed, and the folder is synced; only then
        are older checkpoints removed.

        Raises:
            UserError: if it cannot be written; the partial file is removed.
        """
        path = self._write_atomically(name_of(step), data)
        for old in [p for p in self.paths() if step_of(p) <= step][KEEP:]:
            with contextlib.suppress(OSError):  # a surplus checkpoint is harmless and removed next time
                old.unlink()
        return path

    def commit_best(self, data: bytes) -> Path:
        """Write `data` as the best weights so far, atomically like a checkpoint.

        Raises:
            UserError: if it cannot be written.
        """
        return self._write_atomically(BEST, data)

    def name_final(self, step: int) -> None:
        """Give the checkpoint of `step` the additional name FINAL atomically, or copy it where there are no such names.

        Raises:
            UserError: if it cannot be written.
        """
        source, path = self.folder / name_of(step), self.folder / FINAL

        def make(partial: Path) -> None:
            partial.unlink(missing_ok=True)
            if not hard_link(source, partial):
                self._write(partial, source.read_bytes())

        if not (path.exists() and path.samefile(source)):
            self._replace(path, make, source.stat().st_size)

    def best(self) -> Optional[Checkpoint]:
        """Return the best weights so far; None if there are none, or if they are damaged, after setting them aside.

        Raises:
            UserError: if they cannot be read.
        """
        path = self.folder / BEST
        if not path.exists():
            return None
        checkpoint, reason = self._read(path)
        if checkpoint is None and path.exists():
            raise UserError(reason, ExitStatus.NO_INPUT)
        return checkpoint

    def _write_atomically(self, name: str, data: bytes) -> Path:
        return self._replace(self.folder / name, lambda partial: self._write(partial, data), len(data))

    def _replace(self, path: Path, make: Callable[[Path], None], size: int) -> Path:
        """Replace `path` by a file of `size` bytes that `make` creates under a temporary name."""
        partial = partial_of(path)
        self._require_current()
        try:
            make(partial)
            self._require_current()
            os.replace(partial, path)
            sync_folder(self.folder)
        except (OSError, UserError) as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            if isinstance(error, UserError):
                raise
            self._require_current()  # a later attempt removes what earlier ones were writing
            raise UserError(
                f"{path}: cannot be written, {size / 1e6:.1f} MB are needed ({error.strerror}); earlier "
                "checkpoints are unchanged",
                ExitStatus.CANNOT_WRITE,
            ) from None
        return path

    def _require_current(self) -> None:
        """Check that no later attempt at this job writes here.

        Raises:
            UserError: if one does.
        """
        if is_superseded(self.folder.parent):
            raise superseded(self.folder.parent)

    def newest(self, sets_aside: bool = True) -> LoadedCheckpoint:
        """Return the newest intact checkpoint.

        Args:
            sets_aside: give newer damaged ones another name; else only read.

        Raises:
            UserError: if there is none.
        """
        reasons: List[str] = []
        for path in self.paths():
            checkpoint, reason = self._read(path, sets_aside)
            if checkpoint is not None:
                return LoadedCheckpoint(path, checkpoint, reasons)
            reasons.append(reason)
        if sets_aside and self.paths():  # unreadable ones remain; damaged ones were set aside
            raise UserError(
                f"--resume: no checkpoint can be read: {', '.join(reasons)}; fix that, or start a new run in another "
                "--run-dir",
                ExitStatus.NO_INPUT,
            )
        bad = [*reasons, *(p.name for p in sorted(self.folder.glob(f"*{CORRUPT}")) if not reasons)]
        if bad:
            raise UserError(
                f"--resume: no intact checkpoint is left in {self.folder}: {', '.join(bad)}; start a new run in "
                "another --run-dir",
                ExitStatus.BAD_DATA,
            )
        raise UserError(
            f"--resume: there is no checkpoint in {self.folder}; use the --run-dir of a run that has started",
            ExitStatus.NO_INPUT,
        )

    def _read(self, path: Path, sets_aside: bool = True) -> Tuple[Optional[Checkpoint], str]:
        """Return a checkpoint, or why it was refused; a damaged file is set aside, an unreadable one left in place."""
        try:
            return unpack(read(path), str(path)), ""
        except DamagedError as error:
            return None, f"{error}; {self._set_aside(path)}" if sets_aside else str(error)
        except OSError as error:
            return None, f"{path}: cannot be read ({error.strerror})"

    def _set_aside(self, path: Path) -> str:
        """Rename a damaged file, and return a description of the outcome."""
        try:
            path.replace(path.with_name(path.name + CORRUPT))
        except OSError as error:
            return f"cannot be set aside ({error.strerror})"
        return f"set aside as {path.name}{CORRUPT}"

    def _write(self, path: Path, data: bytes) -> None:
        path.unlink(missing_ok=True)
        # Do not follow a link that another user may have planted, and keep the file private.
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(number, "wb") as file:
            file.write(data)
            file.flush()
            sync(file.fileno())
        if path.read_bytes() != data:
            raise OSError(errno.EIO, "what was read back is not what was written")
