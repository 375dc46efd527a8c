"""Files that all ranks read and write at once, by MPI-IO."""

from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Optional, Type

from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.errors import ExitStatus, UserError

if TYPE_CHECKING:
    pass


class SharedFile:
    """A file of which each rank reads, or writes, the part that is its own. Use it as a context."""

    def __init__(self, path: Path, writers: Optional[MpiGroup] = None) -> None:
        """Open it.

        Args:
            path: of the file.
            writers: make it, or make it empty: all ranks of this group at once, who also close it at once. Without
                any, this rank alone opens it, to read.

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
        """So many bytes from `offset` on, or fewer where the file ends."""
        data, status = bytearray(size), self._mpi.Status()
        try:
            self._file.Read_at(offset, data, status)
        except self._mpi.Exception as error:
            raise self._refusal(error, "read", ExitStatus.NO_INPUT) from None
        return bytes(data[: status.Get_count(self._mpi.BYTE)])

    def write(self, offset: int, data: bytes) -> None:
        """These bytes, from `offset` on."""
        status = self._mpi.Status()
        try:
            self._file.Write_at(offset, data, status)
        except self._mpi.Exception as error:
            raise self._refusal(error, "written", ExitStatus.CANNOT_WRITE) from None
        if status.Get_count(self._mpi.BYTE) < len(data):
            raise UserError(f"{self.path}: cannot be written (is the disk full?)", ExitStatus.CANNOT_WRITE)

    def sync(self) -> None:
        """Bring what was written to the disk, on every rank."""
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
        if error is None or self._is_alone:  # the others may never come to close it with a rank that has failed
            self._file.Close()
