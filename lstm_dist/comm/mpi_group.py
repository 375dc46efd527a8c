"""Ranks by MPI alone, without Horovod beside it, and files that all of them read and write at once, by MPI-IO."""

import os
from typing import TYPE_CHECKING, List, NoReturn

import numpy as np

from lstm_dist.cluster.launch_env import detect, yield_while_waiting
from lstm_dist.comm.process_group import Group, refuse_lonely, refuse_without_pmix

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class MpiGroup(Group):
    """All ranks that mpirun or srun has started; without a launcher, one.

    Attributes:
        comm: MPI's own communicator.
    """

    def __init__(self, comm: "Intracomm") -> None:
        super().__init__(comm.Get_rank(), comm.Get_size())
        self.comm = comm

    @classmethod
    def open(cls) -> "MpiGroup":
        """Join the ranks that the launcher has started.

        Raises:
            SystemExit: when it started several processes and each finds itself alone; the first says so.
        """
        launch = detect()
        refuse_without_pmix(launch)
        yield_while_waiting()
        from mpi4py import MPI

        refuse_lonely(launch, MPI.COMM_WORLD.Get_size())
        return cls(MPI.COMM_WORLD)

    def gather_text(self, text: str, name: str) -> List[str]:  # noqa: ARG002 - MPI goes by the order of calls
        """See Group."""
        texts: List[str] = self.comm.allgather(text)
        return texts

    def sum_(self, array: np.ndarray) -> None:
        """Replace `array` by its sum over all ranks, on every rank."""
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, array)

    def gather_numbers(self, number: int) -> List[int]:
        """Every rank's number, in the order of ranks, on every rank."""
        numbers: List[int] = self.comm.allgather(number)
        return numbers

    def leave(self) -> None:
        """Wait for all."""
        self.comm.Barrier()

    def end_all(self, status: int) -> NoReturn:
        """Through MPI_Abort."""
        self.comm.Abort(status)
        os._exit(status)
