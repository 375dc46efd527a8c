"""Base class of the group of all workers of a training job: the collectives of a step, and of its start and end.

Subclasses implement the communication: Horovod for several workers (horovod_group.py), nothing for one
(single_worker.py). Every collective has a name, which is the same on all ranks.
"""

from abc import abstractmethod
from typing import TYPE_CHECKING, Optional, Sequence

import numpy as np

from lstm_dist.comm.process_group import Group

if TYPE_CHECKING:
    from mxnet.nd import NDArray


class World(Group):
    """The group of all workers of a training job, on one of its ranks.

    Attributes:
        local_rank: this worker's rank among those of its host.
        is_one_host: whether all workers are on this host.
        has_nccl: whether GPU gradients are reduced by NCCL instead of through host memory.
        controller: what connects the workers: gloo or mpi; "none" for a single worker.
        mpi: name and version of the MPI library that connects them; None if none does.
    """

    local_rank: int
    is_one_host: bool
    has_nccl: bool
    controller: str
    mpi: Optional[str] = None

    @abstractmethod
    def average_(self, array: "NDArray", name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:
        """Replace `array` by scale times its mean over all ranks; asynchronous, ordered by MXNet's engine.

        Args:
            array: of the same shape and type on all ranks.
            name: the same on all ranks, and not in use by a pending collective.
            scale: factor, applied in the same call.
            wire_dtype: type for communication; "float16" halves the bytes, and rounds each rank's share and the sum to
                11 significant bits.
        """

    @abstractmethod
    def broadcast_(self, array: "NDArray", name: str) -> None:
        """Replace `array` by the root's in place, bit for bit."""

    @abstractmethod
    def use_host_memory(self) -> None:
        """Send arrays on GPUs through the memory of the hosts from now on; all ranks must call it."""

    @abstractmethod
    def sum(self, values: Sequence[float], name: str) -> np.ndarray:
        """Return the sums over all ranks, in float64, on every rank."""

    @abstractmethod
    def gather_rows(self, array: "NDArray", name: str) -> np.ndarray:
        """Return the rows of all ranks' arrays, concatenated in rank order, on every rank; row counts may differ."""
