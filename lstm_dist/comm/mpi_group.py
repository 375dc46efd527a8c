"""Communication of ranks through MPI alone, without Horovod."""

import os
from typing import TYPE_CHECKING, List, NoReturn

import numpy as np

from lstm_dist.cluster.launch_env import detect, yield_while_waiting
from lstm_dist.comm.process_group import Group, refuse_lonely, refuse_without_pmix

if TYPE_CHECKING:
    from mpi4py.MPI import Intracomm


class MpiGroup(Group):
    """The group of all ranks that mpirun or srun has started; without a launcher, one rank.

    Attributes:
        comm: the MPI communicator.
    """

    def __init__(self, comm: "Intracomm") -> None:
        super().__init__(comm.Get_rank(), comm.Get_size())
        self.comm = comm

    @classmethod
    def open(cls) -> "MpiGroup":
        """Join the group of the launcher's ranks.

        Raises:
            SystemExit: when it started several processes that do not find each other; the first reports it.
        """
        launch = detect()
        refuse_without_pmix(launch)
        yield_while_waiting()
        from mpi4py import MPI

        refuse_lonely(launch, MPI.COMM_WORLD.Get_size())
        return cls(MPI.COMM_WORLD)

    def gather_text(self, text: str, name: str) -> List[str]:  # noqa: ARG002 - MPI matches by the order of calls
        """Return every rank's text, in rank order, on every rank."""
        texts: List[str] = self.comm.allgather(text)
        return texts

    def sum_(self, array: np.ndarray) -> None:
        """Replace `array` by its sum over all ranks, on every rank."""
        from mpi4py import MPI

        self.comm.Allreduce(MPI.IN_PLACE, array)

    def gather_numbers(self, number: int) -> List[int]:
        """Return every rank's number, in rank order, on every rank."""
        numbers: List[int] = self.comm.allgather(number)
        return numbers

    def leave(self) -> None:
        """Wait for all ranks."""
        self.comm.Barrier()

    def end_all(self, status: int) -> NoReturn:
        """End all ranks by MPI_Abort."""
        self.comm.Abort(status)
        os._exit(status)
