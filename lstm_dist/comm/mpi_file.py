"""Files that all ranks write concurrently, by MPI-IO."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lstm_dist.comm.rank_file import RankFile
from lstm_dist.errors import ExitStatus, UserError

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class SharedFile(RankFile):
    """A file of which each rank writes its own part."""

    def __init__(self, path: Path, comm: "Intracomm") -> None:
        """Create or truncate the file; collective over the communicator.

        Raises:
            UserError: when it cannot be opened.
        """
        from mpi4py import MPI

        super().__init__(path)
        self._mpi = MPI
        try:
            self._file: Any = MPI.File.Open(comm, str(path), MPI.MODE_CREATE | MPI.MODE_WRONLY)
            self._file.Set_size(0)
        except MPI.Exception as error:
            raise self._failure(error, "opened", ExitStatus.CANNOT_CREATE) from None

    def write(self, offset: int, data: bytes) -> None:
        """See `RankFile`."""
        status = self._mpi.Status()
        try:
            self._file.Write_at(offset, data, status)
        except self._mpi.Exception as error:
            raise self._failure(error, "written", ExitStatus.CANNOT_WRITE) from None
        if status.Get_count(self._mpi.BYTE) < len(data):
            raise self.refusal("written", "is the disk full?", ExitStatus.CANNOT_WRITE)

    def sync(self) -> None:
        """See `RankFile`."""
        try:
            self._file.Sync()
        except self._mpi.Exception as error:
            raise self._failure(error, "written", ExitStatus.CANNOT_WRITE) from None

    def close(self, has_failed: bool) -> None:
        """See `RankFile`."""
        if not has_failed:  # Close is collective, and other ranks may never reach it after a failure
            self._file.Close()

    def _failure(self, error: Any, what: str, status: ExitStatus) -> UserError:
        return self.refusal(what, str(error.Get_error_string()), status)
