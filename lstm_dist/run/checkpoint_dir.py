"""The folder of a run's checkpoints: the newest few, each of them whole or absent."""

import contextlib
import errno
import os
import re
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.run.checkpoint import Checkpoint, DamagedError, read, unpack

KEEP = 3
_NAME = re.compile(r"step-(\d{9,})\.safetensors")
PARTIAL, CORRUPT = ".partial", ".corrupt"
BEST = "best.safetensors"  # beside the checkpoints: the weights that predicted the held out text best


class Found(NamedTuple):
    """A checkpoint that was loaded, and why those that are newer were not."""

    path: Path
    checkpoint: Checkpoint
    refused: List[str]


def step_of(path: Path) -> int:
    """The step that a checkpoint is named after; -1 for any other file."""
    match = _NAME.fullmatch(path.name)
    return int(match[1]) if match else -1


class Store:
    """The checkpoints in `folder`, which only the root of a job uses."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def require(self) -> Path:
        """The folder, which a run has made.

        Raises:
            UserError: when there is none.
        """
        if not self.folder.is_dir():
            raise UserError(
                f"--run-dir {self.folder.parent}: holds no run that --resume could go on with", ExitStatus.NO_INPUT
            )
        return self.folder

    def paths(self) -> List[Path]:
        """The committed checkpoints, newest first."""
        whole = (path for path in self.folder.glob("step-*.safetensors") if step_of(path) >= 0)
        return sorted(whole, key=step_of, reverse=True)

    def is_begun(self) -> bool:
        """Whether there is, or was, a checkpoint: what is damaged is nothing to begin anew over."""
        return bool(self.paths()) or any(self.folder.glob(f"*{CORRUPT}*"))

    def commit(self, step: int, data: bytes) -> Path:
        """Make `data` the checkpoint of `step`, so that at every moment the old files are there, or the new one too.

        Written under another name, brought to the disk, read back, renamed, and the new name brought to the disk; only
        then are older ones removed.

        Raises:
            UserError: when it cannot be written; nothing is left of it then.
        """
        path = self._place(f"step-{step:09d}.safetensors", data)
        for old in [p for p in self.paths() if step_of(p) <= step][KEEP:]:
            with contextlib.suppress(OSError):  # one too many is no reason to end, and goes next time
                old.unlink()
        return path

    def commit_best(self, data: bytes) -> Path:
        """Make `data` the best weights so far, in the place of those before, and as carefully as a checkpoint.

        Raises:
            UserError: when it cannot be written.
        """
        return self._place(BEST, data)

    def best(self) -> Optional[Checkpoint]:
        """The best weights so far; None where there are none, or they are damaged, and set aside.

        Raises:
            UserError: when they cannot be read.
        """
        path = self.folder / BEST
        if not path.exists():
            return None
        checkpoint, reason = self._read(path)
        if checkpoint is None and path.exists():
            raise UserError(reason, ExitStatus.NO_INPUT)
        return checkpoint

    def _place(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        partial = path.with_name(path.name + PARTIAL)
        try:
            self._write(partial, data)
            os.replace(partial, path)
            self._sync_folder()
        except OSError as error:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise UserError(
                f"{path}: cannot be written, {len(data) / 1e6:.1f} MB are needed ({error.strerror}); the checkpoints "
                "before it are as they were",
                ExitStatus.CANNOT_WRITE,
            ) from None
        return path

    def newest(self) -> Found:
        """The newest checkpoint that is whole; what is newer and is not is set aside under another name.

        Raises:
            UserError: when there is none.
        """
        reasons: List[str] = []
        for path in self.paths():
            checkpoint, reason = self._read(path)
            if checkpoint is not None:
                return Found(path, checkpoint, reasons)
            reasons.append(reason)
        if self.paths():  # what is damaged has been set aside
            raise UserError(
                f"--resume: no checkpoint can be read: {', '.join(reasons)}; mend that, or start again with another "
                "--run-dir",
                ExitStatus.NO_INPUT,
            )
        bad = [*reasons, *(p.name for p in sorted(self.folder.glob(f"*{CORRUPT}")) if not reasons)]
        if bad:
            raise UserError(
                f"--resume: no whole checkpoint is left in {self.folder}: {', '.join(bad)}; start again with another "
                "--run-dir",
                ExitStatus.BAD_DATA,
            )
        raise UserError(
            f"--resume: there is no checkpoint in {self.folder}; name the --run-dir of a run that has begun",
            ExitStatus.NO_INPUT,
        )

    def clean(self) -> None:
        """Remove what a killed job was writing."""
        for partial in self.folder.glob(f"*{PARTIAL}"):
            with contextlib.suppress(OSError):  # in nobody's way
                partial.unlink()

    def _read(self, path: Path) -> Tuple[Optional[Checkpoint], str]:
        """A checkpoint, or why it is none; what is damaged is set aside, and what cannot be read left alone."""
        try:
            return unpack(read(path), str(path)), ""
        except DamagedError as error:
            return None, f"{error}; {self._set_aside(path)}"
        except OSError as error:
            return None, f"{path}: cannot be read ({error.strerror})"

    def _set_aside(self, path: Path) -> str:
        """Rename what is damaged; says how that went."""
        try:
            path.replace(path.with_name(path.name + CORRUPT))
        except OSError as error:
            return f"cannot be set aside ({error.strerror})"
        return f"set aside as {path.name}{CORRUPT}"

    def _write(self, path: Path, data: bytes) -> None:
        path.unlink(missing_ok=True)
        # Not through a link that somebody else put there, and for nobody else to read.
        number = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        with open(number, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        if path.read_bytes() != data:
            raise OSError(errno.EIO, "what was read back is not what was written")

    def _sync_folder(self) -> None:
        number = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(number)
        finally:
            os.close(number)
