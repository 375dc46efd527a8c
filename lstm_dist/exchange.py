"""The workers' world: the only file that imports Horovod or mpi4py.

A world of one is the same code with nothing to send. Every collective has a name, by which Horovod matches the calls of
the ranks.
"""

import json
import os
import re
import signal
import socket
import sys
import time
import traceback
from types import ModuleType, TracebackType
from typing import TYPE_CHECKING, Any, Callable, List, Mapping, NoReturn, Optional, Sequence, Type, TypeVar

import numpy as np

from lstm_dist.errors import ExitStatus, UserError, print_error
from lstm_dist.launcher import Launch, detect

if TYPE_CHECKING:
    from mxnet.nd import NDArray

T = TypeVar("T")

_FIRST_WORD = 2.0  # seconds in which a launcher must not be given a reason to end the others

# What Horovod says when a peer is gone, or its Gloo about a connection, whichever comes first.
_SHUT_DOWN = re.compile(r"Horovod (has been|is) shut", re.IGNORECASE)
_DISCONNECTED = re.compile(
    r"(Read error|writev) \[|Socket closed|(Read|Write) timeout|Connection (closed|reset) by peer|Broken pipe|"
    r"Timed out waiting|caused pair closure|not connected"
)


class SettledError(UserError):
    """A UserError that every rank raises at the same moment, so that all can leave in an orderly way."""


class World:
    """All workers of the job, seen from one of them.

    Use it as a context. Leaving by an exception that the other ranks do not share ends them too: under MPI through
    MPI_Abort, under Gloo by ending this process, on which its peers' connections break and horovodrun stops them.

    Attributes:
        rank, size: this worker among all.
        local_rank: this worker among those of its host.
        is_root: whether this is the one that writes.
        is_one_host: whether all workers are on this host.
        has_nccl: whether gradients of GPUs travel through NCCL, and not through the hosts' memory.
    """

    def __init__(self, hvd: ModuleType, mpi: Optional[ModuleType]) -> None:
        self._hvd = hvd
        self._mpi = mpi
        self.rank: int = hvd.rank()
        self.size: int = hvd.size()
        self.local_rank: int = hvd.local_rank()
        self.is_root = self.rank == 0
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
        _refuse_without_pmix(launch)
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
            # Horovod's thread asks its peers for news a thousand times a second. While it waits for theirs, Open MPI
            # would keep from computing whoever computes on the same core: half the speed of two workers on two cores.
            os.environ.setdefault("OMPI_MCA_mpi_yield_when_idle", "1")
            # Before hvd.init: then mpi4py asks MPI for all the threads that Horovod needs, and it finalizes MPI.
            from mpi4py import MPI

            mpi = MPI
        import horovod.mxnet as hvd

        hvd.init()
        _refuse_lonely(launch, hvd.size())
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

    def share_text(self, text: str, name: str) -> str:
        """The root's text, on every rank."""
        return self.gather_text(text if self.is_root else "", name)[0]

    def gather_text(self, text: str, name: str) -> List[str]:
        """Every rank's text, in the order of ranks, on every rank."""
        from mxnet import nd

        data = np.frombuffer(json.dumps(text).encode(), dtype=np.uint8)
        lengths = self._hvd.allgather(nd.array([len(data)], dtype="int64"), name=f"{name}.lengths").asnumpy()
        gathered = self._hvd.allgather(nd.array(data, dtype="uint8"), name=name).asnumpy()
        parts = np.split(gathered, np.cumsum(lengths)[:-1])
        return [json.loads(part.tobytes().decode()) for part in parts]

    def settle(self, prepare: Callable[[], T], name: str, by_root: bool = False) -> T:
        """Run `prepare` on every rank; where the user's mistake stops it on one, it stops on all with that message.

        Args:
            prepare: may raise a UserError.
            name: of the collective.
            by_root: says that only the root does anything, so that the message need not name the rank.

        Raises:
            SettledError: with the message of the first rank that had one, on every rank.
        """
        result, failure = None, ["", int(ExitStatus.FINISHED)]
        try:
            result = prepare()
        except UserError as error:
            failure = [str(error), int(error.status)]
        failures = [json.loads(text) for text in self.gather_text(json.dumps(failure), name)]
        failed = [rank for rank, (message, _) in enumerate(failures) if message]
        if failed:
            message, status = failures[failed[0]]
            everywhere = by_root or all(other == failures[0] for other in failures)
            of = "" if everywhere else f" (rank {failed[0]} of {self.size})"
            raise SettledError(message + of, ExitStatus(status))
        return result  # type: ignore[return-value]

    def settle_root(self, act: Callable[[], T], name: str) -> Optional[T]:
        """Run `act` on the root alone, and as `settle` does, end on every rank what stops it; None on the others."""
        return self.settle(lambda: act() if self.is_root else None, name, by_root=True)

    def require_equal(
        self,
        facts: Mapping[str, str],
        what: str,
        advice: str = "start every rank with the same command, files and code",
        status: ExitStatus = ExitStatus.BAD_CONFIG,
    ) -> None:
        """Raise SettledError on every rank, naming ranks and keys, unless all ranks give the same.

        Args:
            facts: this rank's, by name.
            what: says what is compared, for the message.
            advice: ends the message.
            status: of the error.
        """
        mine = json.dumps([socket.gethostname(), dict(facts)])
        ranks = [json.loads(text) for text in self.gather_text(mine, what)]
        (first_host, first), *_ = ranks
        differences = []
        for rank, (host, other) in enumerate(ranks):
            keys = [key for key in {**first, **other} if first.get(key) != other.get(key)]
            if keys:
                shown = ", ".join(f"{key} ({_short(other.get(key))}, not {_short(first.get(key))})" for key in keys)
                differences.append(f"rank {rank} on {host} has another {shown}")
        if differences:
            raise SettledError(f"{what}: {'; '.join(differences)}, unlike rank 0 on {first_host}: {advice}", status)

    def __enter__(self) -> "World":
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        shared = error is None or isinstance(error, (SettledError, SystemExit)) or self.size == 1
        if not shared:
            self._abort(error)
        from mxnet import nd

        nd.waitall()
        if isinstance(error, SettledError) and self.is_root:
            print_error(str(error))
        # Nobody leaves before the root has said why: a launcher kills the rest when the first one ends with an error.
        self.sum([0.0], "leave")
        self._hvd.shutdown()
        if isinstance(error, SettledError):
            raise SystemExit(int(error.status)) from None

    def _abort(self, error: Optional[BaseException]) -> NoReturn:
        status = int(ExitStatus.INTERNAL)
        where = f"rank {self.rank} on {socket.gethostname()}"
        try:
            if isinstance(error, BrokenPipeError):
                status = 128 + signal.SIGPIPE  # whoever read our output has left, and needs no words
            elif is_peer_failure(error):
                status = int(ExitStatus.PEER_LOST)
                print_error(f"rank {self.rank} stopped because another rank failed")
            elif isinstance(error, UserError):
                status = int(error.status)
                print_error(f"{where}: {error}")
            else:
                traceback.print_exc()
                print_error(f"{where}: {type(error).__name__}: {error}")
            sys.stdout.flush()
            sys.stderr.flush()
        finally:  # also where nobody takes the words
            if self._mpi:
                self._mpi.COMM_WORLD.Abort(status)
            os._exit(status)


def bare_mpi() -> Any:
    """MPI's own communicator of all workers, without Horovod beside it: what the network itself can do."""
    from mpi4py import MPI

    return MPI.COMM_WORLD


def _refuse_without_pmix(launch: Launch) -> None:
    """Before MPI is started, which would say the same in twenty lines a rank, or nothing at all."""
    if launch.name == "srun" and launch.size > 1 and "PMIX_RANK" not in os.environ:
        _refuse(
            launch,
            f"srun started {launch.size} tasks without PMIx, and each would believe to be alone: use srun --mpi=pmix; "
            "srun --mpi=list shows what this Slurm has",
        )


def _refuse_lonely(launch: Launch, size: int) -> None:
    if launch.name != "none" and launch.size != size:
        _refuse(
            launch,
            f"{launch.name} started {launch.size} processes but each of them finds a world of {size}: the launcher and "
            "Horovod speak different MPIs; use horovodrun, the mpirun that Horovod was built with, or srun --mpi=pmix; "
            "run launch/doctor.py under the same launcher",
        )


def _refuse(launch: Launch, message: str) -> NoReturn:
    """End processes that cannot reach each other: the first of them says why, and all give the others time to start."""
    if launch.rank == 0:
        print_error(message)
    time.sleep(_FIRST_WORD)
    raise SystemExit(int(ExitStatus.BAD_CONFIG))


def _short(value: Optional[str]) -> str:
    """A value that fits on a line: of a long one its beginning."""
    if value is None:
        return "nothing"
    return value if len(value) <= 40 else value[:12] + "..."


def is_peer_failure(error: Optional[BaseException]) -> bool:
    """Whether the error only tells that a collective broke, which another rank is the cause of."""
    text = str(error)
    return bool(_SHUT_DOWN.search(text) or (type(error).__name__ == "MXNetError" and _DISCONNECTED.search(text)))
