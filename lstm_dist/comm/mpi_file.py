"""Files that all ranks read and write concurrently, by MPI-IO."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Type

from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.errors import ExitStatus, UserError

if TYPE_CHECKING:
    pass


class SharedFile:
    """A file of which each rank reads or writes its own part. Use it as a context manager."""

    def __init__(self, path: Path, writers: Optional[MpiGroup] = None) -> None:
        """Open the file.

        Args:
            path: of the file.
            writers: the group whose ranks collectively create or truncate the file, and close it. If None, this rank
                alone opens it for reading.

        Raises:
            UserError: when it cannot be opened.
        """
        from mpi4py import MPI

        self._mpi, self.path, self._is_alone = MPI, path, writers is None
        comm, mode = (writers.comm, MPI.MODE_CREATE | MPI.MODE_WRONLY) if writers else (MPI.COMM_SELF, MPI.MODE_RDONLY)
        try:
            self._file: Any = MPI.File.Open(comm, str(path), mode)
            if writers:
                self._file.Set_size(0)
        except MPI.Exception as error:
            raise self._refusal(error, "opened", ExitStatus.CANNOT_CREATE if writers else ExitStatus.NO_INPUT) from None

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, or fewer at the end of the file."""
        data, status = bytearray(size), self._mpi.Status()
        try:
            self._file.Read_at(offset, data, status)
        except self._mpi.Exception as error:
            raise self._refusal(error, "read", ExitStatus.NO_INPUT) from None
        return bytes(data[: status.Get_count(self._mpi.BYTE)])

    def write(self, offset: int, data: bytes) -> None:
        """Write `data` at `offset`."""
        status = self._mpi.Status()
        try:
            self._file.Write_at(offset, data, status)
        except self._mpi.Exception as error:
            raise self._refusal(error, "written", ExitStatus.CANNOT_WRITE) from None
        if status.Get_count(self._mpi.BYTE) < len(data):
            raise UserError(f"{self.path}: cannot be written (is the disk full?)", ExitStatus.CANNOT_WRITE)

    def sync(self) -> None:
        """Flush the written data to disk; collective over the writers."""
        try:
            self._file.Sync()
        except self._mpi.Exception as error:
            raise self._refusal(error, "written", ExitStatus.CANNOT_WRITE) from None

    def _refusal(self, error: Any, what: str, status: ExitStatus) -> UserError:
        return UserError(f"{self.path}: cannot be {what} ({error.Get_error_string()})", status)

    def __enter__(self) -> "SharedFile":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        if error is None or self._is_alone:  # Close is collective, and other ranks may never reach it after a failure
            self._file.Close()
