"""Files of which each rank reads or writes its own part, and such a file of a single process."""

import os
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import Optional, Type, TypeVar

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import sync

F = TypeVar("F", bound="RankFile")


class RankFile(ABC):
    """A file that all ranks of a group write, each its own part. Use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @abstractmethod
    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`."""

    @abstractmethod
    def sync(self) -> None:
        """Flush the written data to disk; collective over the group."""

    @abstractmethod
    def close(self, has_failed: bool) -> None:
        """Close the file; collective over the group, unless this rank has failed."""

    def refusal(self, what: str, reason: str, status: ExitStatus) -> UserError:
        """Return the error for a file that cannot be opened, read or written."""
        return UserError(f"{self.path}: cannot be {what} ({reason})", status)

    def __enter__(self: F) -> F:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        self.close(has_failed=error is not None)


class LocalFile(RankFile):
    """A file that this process reads, or that it writes alone."""

    def __init__(self, path: Path, is_new: bool = False) -> None:
        """Open the file to read it, or create or truncate it.

        Raises:
            UserError: when it cannot be opened.
        """
        super().__init__(path)
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC if is_new else os.O_RDONLY
        try:
            self._descriptor = os.open(path, flags, 0o666)
        except OSError as error:
            status = ExitStatus.CANNOT_CREATE if is_new else ExitStatus.NO_INPUT
            raise self.refusal("opened", str(error.strerror), status) from None

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, or fewer at the end of the file."""
        parts = []
        try:
            while size:
                part = os.pread(self._descriptor, size, offset)
                if not part:
                    break
                parts.append(part)
                offset, size = offset + len(part), size - len(part)
        except OSError as error:
            raise self.refusal("read", str(error.strerror), ExitStatus.NO_INPUT) from None
        return b"".join(parts)

    def write(self, offset: int, data: bytes) -> None:
        """See `RankFile`."""
        rest = memoryview(data)
        try:
            while rest:
                written = os.pwrite(self._descriptor, rest, offset)
                offset, rest = offset + written, rest[written:]
        except OSError as error:
            raise self.refusal("written", str(error.strerror), ExitStatus.CANNOT_WRITE) from None

    def sync(self) -> None:
        """See `RankFile`."""
        try:
            sync(self._descriptor)
        except OSError as error:
            raise self.refusal("written", str(error.strerror), ExitStatus.CANNOT_WRITE) from None

    def close(self, has_failed: bool) -> None:  # noqa: ARG002 - no other rank waits
        """See `RankFile`."""
        os.close(self._descriptor)
