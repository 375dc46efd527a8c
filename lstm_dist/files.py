"""Files that several processes share: locks on folders, and text files that are replaced atomically."""

import contextlib
import fcntl
import os
import socket
import stat
from pathlib import Path
from typing import IO

from lstm_dist.errors import ExitStatus, UserError

LOCK = "lock"


def claim(run_dir: Path, flag: str = "--run-dir") -> IO[str]:
    """Lock `run_dir` for this job; other jobs are refused while the returned file is open.

    Raises:
        UserError: naming the flag, when another job holds the lock, other users may replace it, or it is not writable.
    """
    try:
        if not run_dir.exists():
            run_dir.mkdir(parents=True, mode=0o700)
        _require_trusted(run_dir, flag)
        lock = (run_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror), flag) from None
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        holder = (run_dir / LOCK).read_text(encoding="utf-8", errors="replace").strip()
        raise UserError(
            f"{flag} {run_dir}: another job is writing there ({holder}): wait until it ends, or give another folder",
            ExitStatus.CANNOT_CREATE,
        ) from None
    except OSError as error:
        lock.close()
        raise cannot_write(run_dir, f"no lock, {error.strerror}", flag) from None
    with contextlib.suppress(OSError):  # the lock is held even if its holder cannot be recorded
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        lock.flush()
    return lock


def is_claimed(run_dir: Path) -> bool:
    """Return whether a job holds the lock of `run_dir`."""
    return is_locked(run_dir / LOCK)


def is_locked(path: Path) -> bool:
    """Return whether a process holds an exclusive lock on a file; False if the file or its locks cannot be read."""
    try:
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        pass
    return False


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically: another process reads the former or the new text, and never a part of one.

    Raises:
        OSError: if it cannot be written; the former file is unchanged.
    """
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def _require_trusted(run_dir: Path, flag: str) -> None:
    """Refuse a folder that another user owns or could replace.

    Raises:
        UserError: naming the flag.
    """
    folder = run_dir.resolve()
    above = folder.parent.stat().st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX:
        raise cannot_write(run_dir, f"any user can replace it: run `chmod o-w {folder.parent}`, or `chmod +t`", flag)
    owner, me = folder.stat().st_uid, os.geteuid()
    if me != 0 and owner not in (me, 0):
        raise cannot_write(run_dir, f"it belongs to another user, uid {owner}: give a folder of your own", flag)


def cannot_write(run_dir: Path, reason: str, flag: str = "--run-dir") -> UserError:
    """Return the error for a directory that is not writable."""
    return UserError(f"{flag} {run_dir}: cannot be written ({reason})", ExitStatus.CANNOT_CREATE)
