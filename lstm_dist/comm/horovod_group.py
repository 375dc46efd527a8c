"""Communication of the workers of a training job through Horovod; the only module that imports Horovod.

Horovod matches the calls of the ranks by the name of the collective.
"""

import os
import re
from contextlib import nullcontext
from types import ModuleType
from typing import TYPE_CHECKING, List, NoReturn, Optional, Sequence

import numpy as np

from lstm_dist.cluster.launch_env import detect, is_single, yield_while_waiting
from lstm_dist.cluster.leftovers import drop_leftovers
from lstm_dist.cluster.start_signals import default_actions
from lstm_dist.comm.gloo_loopback import host_name_is_loopback
from lstm_dist.comm.process_group import refuse_split_world, refuse_without_pmix
from lstm_dist.comm.single_worker import SingleWorker
from lstm_dist.comm.world import World
from lstm_dist.cuda import arrays

if TYPE_CHECKING:
    from mxnet.nd import NDArray

# Messages after the failure of a peer: of Horovod itself, or of its Gloo about a connection, whichever comes first.
_SHUT_DOWN = re.compile(r"Horovod (has been|is) shut", re.IGNORECASE)
_DISCONNECTED = re.compile(
    r"(Read error|writev) \[|Socket closed|(Read|Write) timeout|Connection (closed|reset) by peer|Broken pipe|"
    r"Timed out waiting|caused pair closure|not connected"
)


class HorovodWorld(World):
    """The group of several workers of a training job, connected by Horovod."""

    def __init__(self, hvd: ModuleType, mpi: Optional[ModuleType]) -> None:
        self._hvd = hvd
        self._mpi = mpi
        if mpi:  # "Open MPI v4.1.8, package: ..., ident: ...", or several lines
            self.mpi = re.split(r"[\n\0]|, package", mpi.Get_library_version())[0].strip()
        super().__init__(hvd.rank(), hvd.size())
        self.local_rank: int = hvd.local_rank()
        self.is_one_host: bool = hvd.local_size() == self.size
        self.has_nccl = bool(hvd.nccl_built())
        self._reaches_gpus = bool(hvd.cuda_built())
        self.controller = "mpi" if mpi else "gloo"

    @classmethod
    def open(cls) -> World:
        """Join the world of the launcher; a job of one worker needs no Horovod, with or without a launcher.

        Raises:
            UserError: when the environment is that of one of several workers whose launcher has ended.
            SystemExit: when the launcher started several processes that do not find each other; the first reports it.
        """
        drop_leftovers(os.environ)
        if is_single():
            return SingleWorker()
        launch = detect()
        refuse_without_pmix(launch)
        controller = os.environ.setdefault("HOROVOD_CONTROLLER", "gloo" if launch.name == "horovodrun" else "mpi")
        os.environ.setdefault("HOROVOD_CPU_OPERATIONS", controller)
        # Reduce one buffer at a time, in a fixed order. Fusing the buffers that happen to be ready changes the order of
        # summation, so with three or more ranks two runs of a job would not be bitwise equal.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")

        mpi: Optional[ModuleType] = None
        if controller == "mpi":
            yield_while_waiting()
            # Before hvd.init, so that mpi4py requests the thread level that Horovod needs, and finalizes MPI.
            with default_actions():  # MPI_Init holds Python's lock
                from mpi4py import MPI

            mpi = MPI
        import horovod.mxnet as hvd

        over_loopback = controller == "gloo" and launch.is_one_host
        with host_name_is_loopback(hvd.mpi_ops._basics.MPI_LIB_CTYPES) if over_loopback else nullcontext():
            hvd.init()
        refuse_split_world(launch, hvd.size())
        return cls(hvd, mpi)

    def average_(self, array: "NDArray", name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:
        """See `World`."""
        if wire_dtype != str(np.dtype(array.dtype)):
            # Divide before the sum, because the largest float16 is 65,504.
            wire = arrays.to_half(array, scale / self.size)
            self._allreduce_(wire, self._hvd.Sum, name)
            arrays.from_half(wire, array)
        elif self._reaches_gpus and not self._is_here(array):
            # Horovod's own kernel for the scaling has no code for every GPU, and Horovod does not notice if it fails.
            self._allreduce_(array, self._hvd.Sum, name)
            arrays.scale_(array, scale / self.size)
        else:
            self._allreduce_(array, self._hvd.Average, name, scale)

    def broadcast_(self, array: "NDArray", name: str) -> None:
        """See `World`."""
        # Horovod 0.28's own broadcast rarely crashes: it reads the tensor's name after enqueuing it, when the name may
        # be freed. A sum with negative zeros is equivalent, as -0.0 + x is x.
        if not self.is_root:
            array[:] = np.array(-0.0)  # an array is copied from the host; of a number, MXNet assigns 0.0
        self._allreduce_(array, self._hvd.Sum, name)
        array.wait_to_read()

    def use_host_memory(self) -> None:
        """See `World`."""
        self.has_nccl = self._reaches_gpus = False

    def sum(self, values: Sequence[float], name: str) -> np.ndarray:
        """See `World`."""
        from mxnet import nd

        total: np.ndarray = self._hvd.allreduce(
            nd.array(values, dtype="float64"), op=self._hvd.Sum, name=name
        ).asnumpy()
        return total

    def gather_rows(self, array: "NDArray", name: str) -> np.ndarray:
        """See `World`."""
        rows: np.ndarray = self._hvd.allgather(self._within_reach(array), name=name).asnumpy()
        return rows

    def _allreduce_(self, array: "NDArray", op: int, name: str, scale: float = 1.0) -> None:
        """Reduce `array` over all ranks in place."""
        reached = self._within_reach(array)
        self._hvd.allreduce_(reached, op=op, name=name, postscale_factor=scale)
        if reached is not array:
            reached.copyto(array)

    def _within_reach(self, array: "NDArray") -> "NDArray":
        """Return the array, or a copy in host memory if it is on a GPU and Horovod does not reach that."""
        from mxnet import cpu

        return array if self._reaches_gpus or self._is_here(array) else array.as_in_context(cpu())

    @staticmethod
    def _is_here(array: "NDArray") -> bool:
        return bool(array.context.device_type == "cpu")

    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:
        """Return every rank's bytes, in rank order, on every rank."""
        from mxnet import nd

        mine = nd.array(np.frombuffer(data, dtype=np.uint8), dtype="uint8")
        lengths = self._hvd.allgather(nd.array([len(data)], dtype="int64"), name=f"{name}.lengths").asnumpy()
        gathered = self._hvd.allgather(mine, name=name).asnumpy()
        return [part.tobytes() for part in np.split(gathered, np.cumsum(lengths)[:-1])]

    def leave(self) -> None:
        """Wait for pending operations and for all ranks, then shut Horovod down."""
        from mxnet import nd

        nd.waitall()
        self.sum([0.0], "leave")
        self._hvd.shutdown()

    def abort(self, status: int) -> NoReturn:
        """End all ranks: by MPI_Abort under MPI; under Gloo the connections break and horovodrun stops the peers."""
        if self._mpi:
            self._mpi.COMM_WORLD.Abort(status)
        os._exit(status)

    def is_peer_failure(self, error: Optional[BaseException]) -> bool:
        """Return whether the error results from the failure of another rank."""
        return is_peer_failure(error)


def is_peer_failure(error: Optional[BaseException]) -> bool:
    """Return whether the error reports a broken collective, which results from the failure of another rank."""
    text = str(error)
    return bool(_SHUT_DOWN.search(text) or (type(error).__name__ == "MXNetError" and _DISCONNECTED.search(text)))
