"""A file system that lacks locks, syncing of folders, permission bits or hard links, simulated at the system calls."""

import errno
import fcntl
import os
import stat
from pathlib import Path
from typing import Any, Callable, NoReturn

import pytest


def fails_with(number: int) -> Callable[..., NoReturn]:
    def call(*_: object, **__: object) -> NoReturn:
        raise OSError(number, os.strerror(number))

    return call


def without_locks(patch: pytest.MonkeyPatch, number: int = errno.ENOLCK) -> None:
    patch.setattr(fcntl, "flock", fails_with(number))


def without_hard_links(patch: pytest.MonkeyPatch, number: int = errno.EPERM) -> None:
    patch.setattr(os, "link", fails_with(number))


def without_synced_folders(patch: pytest.MonkeyPatch, number: int = errno.EOPNOTSUPP) -> None:
    fsync = os.fsync

    def call(descriptor: int) -> None:
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(number, os.strerror(number))
        fsync(descriptor)

    patch.setattr(os, "fsync", call)


def without_permissions(patch: pytest.MonkeyPatch, top: Path) -> None:
    """Give every new folder below `top`, and `top` itself, the permissions 777, as on a share of Windows."""
    mkdir = os.mkdir

    def call(path: Any, *mode: int, **how: Any) -> None:
        mkdir(path, *mode, **how)
        if str(path).startswith(str(top)):
            Path(path).chmod(0o777)

    top.chmod(0o777)
    patch.setattr(os, "mkdir", call)
