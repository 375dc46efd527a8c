"""Commits of checkpoints during which one file operation fails."""

import builtins
import os
from pathlib import Path
from typing import Callable, List

import numpy as np
import pytest

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.run.checkpoint import pack
from lstm_dist.run.checkpoint_dir import CheckpointDir

VOCABULARY = Vocabulary("天地人和")


def data(step: int) -> bytes:
    return pack({"W": np.full(5, step, np.float32)}, VOCABULARY, step=step)


def newest_step(store: CheckpointDir) -> int:
    return int(store.newest().checkpoint.facts["step"])


class CrashError(BaseException):
    """Simulates the sudden end of the process, after which no handler of the program may run."""


class Disk:
    """Records the file operations of a commit, and makes one of them fail."""

    WATCHED = ("open", "fsync", "replace", "unlink", "close")

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.log: List[str] = []
        self.fails_at, self.error, self.after = -1, OSError(28, "No space left on device"), False
        for name in self.WATCHED:
            patch.setattr(os, name, self.watch(name, getattr(os, name)))
        original_open, original_read = builtins.open, Path.read_bytes
        patch.setattr(builtins, "open", self.watch("fdopen", lambda *a, **k: Writer(self, original_open(*a, **k))))
        patch.setattr(Path, "read_bytes", self.watch("read", original_read))

    def watch(self, name: str, original: Callable) -> Callable:
        def operation(*arguments: object, **named: object) -> object:
            number = len(self.log)
            self.log.append(name)
            if number == self.fails_at and not self.after:
                raise self.error
            result = original(*arguments, **named)
            if number == self.fails_at:
                raise self.error
            return result

        return operation


class Writer:
    """A file in which a write may fail halfway."""

    def __init__(self, disk: Disk, file: object) -> None:
        self._disk, self._file = disk, file

    def write(self, data: bytes) -> None:
        def half_or_all(part: bytes) -> None:
            self._file.write(part)

        if len(self._disk.log) == self._disk.fails_at:
            self._file.write(data[: len(data) // 2])
            self._file.flush()
        self._disk.watch("write", half_or_all)(data)

    def __enter__(self) -> "Writer":
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._file, name)


def commit_with_fault(
    store: CheckpointDir, fails_at: int, error: BaseException, after: bool, step: int = 4
) -> List[str]:
    """Commit `step` while operation number `fails_at` fails, and return the attempted operations."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        disk.fails_at, disk.error, disk.after = fails_at, error, after
        try:
            store.commit(step, data(step))
        except (CrashError, UserError):
            disk.log.append("failed")
    return disk.log


def with_three(folder: Path) -> CheckpointDir:
    folder.mkdir()
    store = CheckpointDir(folder)
    for step in (1, 2, 3):
        store.commit(step, data(step))
    return store


FAULTS = [CrashError(), OSError(28, "No space left on device"), OSError(5, "Input/output error")]
