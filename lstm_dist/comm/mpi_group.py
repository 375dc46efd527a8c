"""Communication of ranks through MPI alone, without Horovod."""

import os
from pathlib import Path
from typing import TYPE_CHECKING, List, NoReturn

import numpy as np

from lstm_dist.cluster.launch_env import detect, is_single, yield_while_waiting
from lstm_dist.cluster.leftovers import drop_leftovers
from lstm_dist.cluster.start_signals import default_actions
from lstm_dist.comm.mpi_file import SharedFile
from lstm_dist.comm.process_group import refuse_split_world, refuse_without_pmix
from lstm_dist.comm.rank_group import RankGroup, SingleRank

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class MpiGroup(RankGroup):
    """The group of all ranks that mpirun or srun has started.

    Attributes:
        comm: the MPI communicator.
    """

    def __init__(self, comm: "Intracomm") -> None:
        super().__init__(comm.Get_rank(), comm.Get_size())
        self.comm = comm

    @classmethod
    def open(cls) -> RankGroup:
        """Join the group of the launcher's ranks; a single process needs no MPI, with or without a launcher.

        Raises:
            UserError: when the environment is that of one of several processes whose launcher has ended.
            SystemExit: when it started several processes that do not find each other; the first reports it.
        """
        drop_leftovers(os.environ)
        return SingleRank() if is_single() else cls.join()

    @classmethod
    def join(cls) -> "MpiGroup":
        """Start MPI and join its ranks.

        Raises:
            SystemExit: as `open`.
        """
        launch = detect()
        refuse_without_pmix(launch)
        yield_while_waiting()
        with default_actions():  # MPI_Init holds Python's lock
            from mpi4py import MPI

        refuse_split_world(launch, MPI.COMM_WORLD.Get_size())
        return cls(MPI.COMM_WORLD)

    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:  # noqa: ARG002 - MPI matches by the order of calls
        """Return every rank's bytes, in rank order, on every rank."""
        from mpi4py import MPI

        lengths = np.empty(self.size, dtype=np.int64)
        self.comm.Allgather(np.array([len(data)], dtype=np.int64), lengths)
        gathered = np.empty(lengths.sum(), dtype=np.uint8)
        self.comm.Allgatherv(np.frombuffer(data, dtype=np.uint8), [gathered, lengths, MPI.BYTE])
        return [part.tobytes() for part in np.split(gathered, np.cumsum(lengths)[:-1])]

    def sum_(self, array: np.ndarray) -> None:
        """See `RankGroup`."""
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, array)

    def create_file(self, path: Path) -> SharedFile:
        """See `RankGroup`."""
        return SharedFile(path, self.comm)

    def leave(self) -> None:
        """Wait for all ranks."""
        self.comm.Barrier()

    def abort(self, status: int) -> NoReturn:
        """End all ranks by MPI_Abort."""
        self.comm.Abort(status)
        os._exit(status)
