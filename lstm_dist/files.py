"""Files that several processes share or that must survive a crash: locks on folders, atomic replacement, syncing.

Some file systems lack locks, syncing, permission bits or hard links. What they lack is done without, and
`missing_guarantees` says what that means. Every other error, such as that of a full disk, remains an error.
"""

import contextlib
import errno
import fcntl
import os
import re
import socket
import stat
import tempfile
import threading
from pathlib import Path
from typing import IO, Any, Callable, Collection, List, Optional, Set

from lstm_dist.attempt import Attempt
from lstm_dist.errors import ExitStatus, UserError

LOCK = "lock"
PARTIAL = ".partial"  # ends the name of a file that is being written
_OF_ATTEMPT = re.compile(r"\.attempt-(.+)\.partial")  # in such a name
_PROBE = ".probe-"  # prefix of short-lived folders, with which a file system is tested
# Errors of calls that a file system does not support. EINVAL is that of fsync, and ENOLCK that of a network file
# system without a lock server.
_UNSUPPORTED = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOLCK)
_NO_HARD_LINKS = (*_UNSUPPORTED, errno.EPERM, errno.EMLINK)
_unlocked: Set[Path] = set()  # folders that this process has claimed without a lock


def claim(run_dir: Path, flag: str = "--run-dir") -> IO[str]:
    """Lock `run_dir` for this job; other jobs are refused while the returned file is open, if there are locks.

    A lock that an earlier attempt at this job still holds, on a host that was cut off, is replaced.

    Raises:
        UserError: naming the flag, when another job holds the lock, other users may replace it, it is not writable, or
            a later attempt at this job has begun.
    """
    try:
        if not run_dir.exists():
            run_dir.mkdir(parents=True, mode=0o700)
        _require_trusted(run_dir, flag)
        lock = (run_dir / LOCK).open("a+", encoding="utf-8")
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror), flag) from None
    try:
        has_lock = lock_file(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        lock.close()
        return _take_over(run_dir, flag)
    except OSError as error:
        lock.close()
        raise cannot_write(run_dir, f"no lock, {error.strerror}", flag) from None
    if is_superseded(run_dir):
        lock.close()
        raise superseded(run_dir)
    (_unlocked.discard if has_lock else _unlocked.add)(run_dir.resolve())
    with contextlib.suppress(OSError):  # the lock is held even if its holder cannot be recorded
        lock.truncate(0)
        lock.write(_holder())
        lock.flush()
    return lock


def _holder() -> str:
    """Return the content of a lock of this process, the second line for `is_superseded`."""
    attempt = Attempt.current()
    return f"process {os.getpid()} on {socket.gethostname()}\n" + (f"attempt {attempt}\n" if attempt else "")


def _take_over(run_dir: Path, flag: str) -> IO[str]:
    """Replace the lock that another process holds by one of this process, if that is an earlier attempt at its job.

    Raises:
        UserError: naming the flag, if it is not.
    """
    holder, _, _ = (run_dir / LOCK).read_text(encoding="utf-8", errors="replace").partition("\n")
    known, mine = _attempt_of(run_dir), Attempt.current()
    if known is None or not known.precedes(mine):
        raise UserError(
            f"{flag} {run_dir}: another job is writing there ({holder}): wait until it ends, or give another folder",
            ExitStatus.CANNOT_CREATE,
        )
    path = run_dir / f"{LOCK}.{mine}"
    try:
        lock = path.open("w+", encoding="utf-8")
        lock_file(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lock.write(_holder())
        lock.flush()
        os.replace(path, run_dir / LOCK)
    except OSError as error:
        raise cannot_write(run_dir, str(error.strerror), flag) from None
    return lock


def _attempt_of(run_dir: Path) -> Optional[Attempt]:
    """Return the attempt whose root has claimed a folder last; None if it is unknown."""
    with contextlib.suppress(OSError, IndexError):
        word, _, attempt = (run_dir / LOCK).read_text(encoding="utf-8", errors="replace").splitlines()[1].partition(" ")
        return Attempt.parse(attempt) if word == "attempt" else None
    return None


def is_superseded(run_dir: Path) -> bool:
    """Return whether a later attempt at the job of this process has claimed a folder: this one must not write there."""
    mine = Attempt.current()
    return mine is not None and mine.precedes(_attempt_of(run_dir))


def superseded(run_dir: Path) -> UserError:
    """Return the error with which a worker of an earlier attempt ends."""
    return UserError(f"{run_dir}: a later attempt at this job writes there: this one ends", ExitStatus.PEER_LOST)


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


def lock_file(file: IO[Any], operation: int) -> bool:
    """Apply a `flock` operation to an open file, and return whether the file system supports it.

    Raises:
        BlockingIOError: if another process holds the lock, and the operation does not wait for it.
        OSError: if it fails for another reason.
    """
    return _is_supported(lambda: fcntl.flock(file, operation))


def sync(descriptor: int) -> bool:
    """Write an open file or folder to the disk, and return whether the file system supports that.

    Raises:
        OSError: if it fails for another reason.
    """
    return _is_supported(lambda: os.fsync(descriptor))


def sync_folder(folder: Path) -> bool:
    """Write the names in a folder to the disk, as `sync`."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return sync(number)
    finally:
        os.close(number)


def hard_link(source: Path, path: Path) -> bool:
    """Give a file the additional name `path`, and return whether the file system has such names.

    Raises:
        OSError: if it has them, and that fails.
    """
    return _is_supported(lambda: os.link(source, path), _NO_HARD_LINKS)


def _is_supported(call: Callable[[], None], unsupported: Collection[int] = _UNSUPPORTED) -> bool:
    """Make a call, and return whether the file system supports it.

    Args:
        call: of the operating system.
        unsupported: the errors of a call that is not supported.

    Raises:
        OSError: if it fails for another reason.
    """
    try:
        call()
    except OSError as error:
        if error.errno not in unsupported:
            raise
        return False
    return True


def missing_guarantees(folder: Path) -> List[str]:
    """Return what the file system of a folder does not guarantee, in one warning each; call it after `claim`.

    Locks can be missing for a time only, while a server restarts. They are missing for all of a job that has claimed
    the folder, or one in it, during that time.
    """
    is_unlocked = any(folder.resolve() in (claimed, claimed.parent) for claimed in _unlocked)
    lacks: List[str] = []
    # What fails for another reason, such as a full disk, is reported by what is written next.
    with contextlib.suppress(OSError), tempfile.TemporaryDirectory(prefix=_PROBE, dir=folder) as name:
        with (Path(name) / LOCK).open("w", encoding="utf-8") as file:
            if not lock_file(file, fcntl.LOCK_EX | fcntl.LOCK_NB) or is_unlocked:
                lacks.append("cannot lock files: if two jobs write there at the same time, neither is refused")
            if not (sync(file.fileno()) and sync_folder(Path(name))):
                lacks.append(
                    "cannot sync files and folders: if this machine crashes, what was written last, such as the newest "
                    "checkpoint, may be missing or damaged"
                )
        if not _keeps_permissions(folder):
            lacks.append(
                "does not keep owners and permissions: other users of it may be able to read and replace what is "
                "written there"
            )
    return [f"warning: the file system of {folder} {lack}" for lack in lacks]


def _keeps_permissions(folder: Path) -> bool:
    """Return whether a new folder has the owner and the permissions that were requested; True if it cannot be made."""
    try:
        new = Path(tempfile.mkdtemp(prefix=_PROBE, dir=folder))  # for this user alone
        found = new.stat()
        new.rmdir()
    except OSError:
        return True
    return not found.st_mode & 0o077 and os.geteuid() in (0, found.st_uid)


def replace_text(path: Path, text: str) -> None:
    """Replace a text file atomically: another process reads the former or the new text, and never a part of one.

    Raises:
        OSError: if it cannot be written; the former file is unchanged.
    """
    partial = partial_of(path)
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def partial_of(path: Path) -> Path:
    """Return the name of the file that this thread writes in order to replace `path`; no other writer has this name."""
    attempt = Attempt.current()
    suffix = f".attempt-{attempt}{PARTIAL}" if attempt else PARTIAL
    return path.with_name(f"{path.name}.{socket.gethostname()}-{threading.get_native_id()}{suffix}")


def remove_partials(folder: Path, name: str) -> None:
    """Remove what killed writers have left in a folder of a run that this process has claimed.

    Files of a later attempt at this job are kept: it may have taken over the run since. A writer of an earlier one that
    still runs may not replace a file, and loses nothing.

    Args:
        folder: to clean.
        name: of the files that were being written, a pattern that also matches what `partial_of` appends.
    """
    mine = Attempt.current()
    for path in folder.glob(f"{name}{PARTIAL}"):
        match = _OF_ATTEMPT.search(path.name)
        if not (mine and match and mine.precedes(Attempt.parse(match[1]))):
            with contextlib.suppress(OSError):  # such a file is harmless
                path.unlink()


def _require_trusted(run_dir: Path, flag: str) -> None:
    """Refuse a folder that another user owns or could replace, if its file system keeps owners and permissions.

    Raises:
        UserError: naming the flag.
    """
    folder = run_dir.resolve()
    above = folder.parent.stat().st_mode
    if above & stat.S_IWOTH and not above & stat.S_ISVTX and _keeps_permissions(folder.parent):
        raise cannot_write(run_dir, f"any user can replace it: run `chmod o-w {folder.parent}`, or `chmod +t`", flag)
    owner, me = folder.stat().st_uid, os.geteuid()
    if me != 0 and owner not in (me, 0) and _keeps_permissions(folder):
        raise cannot_write(run_dir, f"it belongs to another user, uid {owner}: give a folder of your own", flag)


def remove_former(run_dir: Path, name: str) -> None:
    """Delete a file of a run that another one replaces.

    Raises:
        UserError: naming --run-dir, if it exists and cannot be deleted.
    """
    try:
        (run_dir / name).unlink(missing_ok=True)
    except OSError as error:
        raise cannot_write(run_dir, f"{name} in it: {error.strerror}") from None


def cannot_write(run_dir: Path, reason: str, flag: str = "--run-dir") -> UserError:
    """Return the error for a directory that is not writable."""
    return UserError(f"{flag} {run_dir}: cannot be written ({reason})", ExitStatus.CANNOT_CREATE)
