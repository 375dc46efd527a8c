"""The workers' world: the only file that imports Horovod, and beside mpi.py the only one that imports mpi4py.

A world of one is the same code with nothing to send. Every collective has a name, by which Horovod matches the calls of
the ranks.
"""

import json
import os
import re
from types import ModuleType
from typing import TYPE_CHECKING, List, NoReturn, Optional, Sequence

import numpy as np

from lstm_dist.cluster.launch_env import detect, yield_while_waiting
from lstm_dist.comm.process_group import Group, refuse_lonely, refuse_without_pmix

if TYPE_CHECKING:
    from mxnet.nd import NDArray

# What Horovod says when a peer is gone, or its Gloo about a connection, whichever comes first.
_SHUT_DOWN = re.compile(r"Horovod (has been|is) shut", re.IGNORECASE)
_DISCONNECTED = re.compile(
    r"(Read error|writev) \[|Socket closed|(Read|Write) timeout|Connection (closed|reset) by peer|Broken pipe|"
    r"Timed out waiting|caused pair closure|not connected"
)


class World(Group):
    """All workers of the job, seen from one of them.

    Attributes:
        local_rank: this worker among those of its host.
        is_one_host: whether all workers are on this host.
        has_nccl: whether gradients of GPUs travel through NCCL, and not through the hosts' memory.
    """

    def __init__(self, hvd: ModuleType, mpi: Optional[ModuleType]) -> None:
        self._hvd = hvd
        self._mpi = mpi
        super().__init__(hvd.rank(), hvd.size())
        self.local_rank: int = hvd.local_rank()
        self.is_one_host: bool = hvd.local_size() == self.size
        self.has_nccl = bool(hvd.nccl_built())
        self._reaches_gpus = bool(hvd.cuda_built())
        self.controller = "mpi" if mpi else "gloo"

    @classmethod
    def open(cls) -> "World":
        """Join the world that the launcher made; without one, a world of one.

        Raises:
            SystemExit: when the launcher started several processes and each finds itself alone; the first says so.
        """
        launch = detect()
        refuse_without_pmix(launch)
        # Without mpirun or srun there is nothing that MPI could connect to; Gloo makes a world of one by itself.
        controller = os.environ.setdefault(
            "HOROVOD_CONTROLLER", "gloo" if launch.name in ("none", "horovodrun") else "mpi"
        )
        os.environ.setdefault("HOROVOD_CPU_OPERATIONS", controller)
        # One buffer is sent at a time, in one order. Fusing whatever is ready would change the order of summation, and
        # from three ranks on the bits, between two runs of one job.
        os.environ.setdefault("HOROVOD_FUSION_THRESHOLD", "0")

        mpi: Optional[ModuleType] = None
        if controller == "mpi":
            yield_while_waiting()
            # Before hvd.init: then mpi4py asks MPI for all the threads that Horovod needs, and it finalizes MPI.
            from mpi4py import MPI

            mpi = MPI
        import horovod.mxnet as hvd

        hvd.init()
        refuse_lonely(launch, hvd.size())
        return cls(hvd, mpi)

    def average_(self, array: "NDArray", name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:
        """Replace `array` by scale times its mean over all ranks; asynchronous, ordered by MXNet's engine.

        Args:
            array: of one shape and type on all ranks.
            name: the same on all ranks, and not in flight already.
            scale: rides along in the same call.
            wire_dtype: "float16" sends half the bytes: every rank's share is rounded to 11 bits, and so is their sum.
        """
        if self.size == 1:
            if scale != 1.0:
                array *= scale
        elif wire_dtype == str(np.dtype(array.dtype)):
            self._allreduce_(array, self._hvd.Average, name, scale)
        else:
            # Divided first and summed then: 65,504 is the largest number of float16.
            array *= scale / self.size
            wire = array.astype(wire_dtype)
            self._allreduce_(wire, self._hvd.Sum, name)
            wire.copyto(array)

    def broadcast_(self, array: "NDArray", name: str) -> None:
        """Replace `array` by the root's, in place and to the bit."""
        if self.size > 1:
            # Horovod 0.28's own broadcast reads its name once more after it has handed the tensor over, by when the
            # name may be freed: a crash, rarely. A sum with negative zeros is the root's array too: -0.0 + x is x.
            if not self.is_root:
                array[:] = 0.0
                array *= -1.0  # MXNet fills with 0.0 where -0.0 is asked for
            self._allreduce_(array, self._hvd.Sum, name)
        array.wait_to_read()

    def sum(self, values: Sequence[float], name: str) -> np.ndarray:
        """The sums over all ranks, in float64, on every rank."""
        from mxnet import nd

        total: np.ndarray = self._hvd.allreduce(
            nd.array(values, dtype="float64"), op=self._hvd.Sum, name=name
        ).asnumpy()
        return total

    def gather_rows(self, array: "NDArray", name: str) -> np.ndarray:
        """The rows of every rank's array, one rank's below the other's, on every rank; they may be unequally many."""
        rows: np.ndarray = self._hvd.allgather(self._within_reach(array), name=name).asnumpy()
        return rows

    def _allreduce_(self, array: "NDArray", op: int, name: str, scale: float = 1.0) -> None:
        """In place."""
        reached = self._within_reach(array)
        self._hvd.allreduce_(reached, op=op, name=name, postscale_factor=scale)
        if reached is not array:
            reached.copyto(array)

    def _within_reach(self, array: "NDArray") -> "NDArray":
        """The array where Horovod can get at it: a copy in the host's memory, if it was compiled without CUDA."""
        from mxnet import cpu

        return array if self._reaches_gpus or self._is_here(array) else array.as_in_context(cpu())

    @staticmethod
    def _is_here(array: "NDArray") -> bool:
        return bool(array.context.device_type == "cpu")

    def gather_text(self, text: str, name: str) -> List[str]:
        """Every rank's text, in the order of ranks, on every rank."""
        from mxnet import nd

        data = np.frombuffer(json.dumps(text).encode(), dtype=np.uint8)
        lengths = self._hvd.allgather(nd.array([len(data)], dtype="int64"), name=f"{name}.lengths").asnumpy()
        gathered = self._hvd.allgather(nd.array(data, dtype="uint8"), name=name).asnumpy()
        parts = np.split(gathered, np.cumsum(lengths)[:-1])
        return [json.loads(part.tobytes().decode()) for part in parts]

    def leave(self) -> None:
        """Wait for all that is under way, and for all ranks."""
        from mxnet import nd

        nd.waitall()
        self.sum([0.0], "leave")
        self._hvd.shutdown()

    def end_all(self, status: int) -> NoReturn:
        """Under MPI through MPI_Abort; under Gloo the peers' connections break, on which horovodrun stops them."""
        if self._mpi:
            self._mpi.COMM_WORLD.Abort(status)
        os._exit(status)

    def is_peer_failure(self, error: Optional[BaseException]) -> bool:
        """See the function."""
        return is_peer_failure(error)


def is_peer_failure(error: Optional[BaseException]) -> bool:
    """Whether the error only tells that a collective broke, which another rank is the cause of."""
    text = str(error)
    return bool(_SHUT_DOWN.search(text) or (type(error).__name__ == "MXNetError" and _DISCONNECTED.search(text)))
