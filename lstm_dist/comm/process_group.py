"""Base class of a group of ranks: agreement between ranks, and orderly termination after an error on one of them.

Subclasses implement the communication: Horovod for training (horovod_group.py), MPI alone for preparing text
(mpi_group.py). A group of one runs the same code without communication.
"""

import json
import os
import signal
import socket
import sys
import time
import traceback
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Any, Callable, List, Mapping, NoReturn, Optional, Type, TypeVar

from lstm_dist.cluster.launch_env import Launch
from lstm_dist.errors import ExitStatus, UserError, print_error

T = TypeVar("T")
G = TypeVar("G", bound="Group")

_FIRST_WORD = 2.0  # seconds in which no rank exits, so that the launcher does not kill the first one before it reports


class CollectiveError(UserError):
    """A UserError that every rank raises at the same point, so that all can exit in an orderly way."""


class Group(ABC):
    """The group of all ranks of a job, on one of them.

    Use it as a context manager. An exception that is not raised on the other ranks too ends all of them.

    Attributes:
        rank, size: this rank and the number of ranks.
        is_root: whether this is rank 0, which writes the output.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.is_root = rank == 0

    @abstractmethod
    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:
        """Return every rank's bytes, in rank order, on every rank; `name` is the same on all of them."""

    @abstractmethod
    def leave(self) -> None:
        """Wait for all ranks and leave the group."""

    @abstractmethod
    def abort(self, status: int) -> NoReturn:
        """End the processes of all ranks."""

    def is_peer_failure(self, error: Optional[BaseException]) -> bool:  # noqa: ARG002 - overridden for Horovod
        """Return whether the error results from the failure of another rank."""
        return False

    def allgather_object(self, value: Any, name: str) -> List[Any]:
        """Return every rank's value, in rank order, on every rank.

        Args:
            value: anything that JSON can represent; tuples arrive as lists.
            name: of the collective, the same on all ranks.
        """
        return [json.loads(data) for data in self.allgather_bytes(json.dumps(value).encode(), name)]

    def broadcast_object(self, value: Any, name: str) -> Any:
        """Return the root's value on every rank, as `allgather_object`; the other ranks' values are ignored."""
        return self.allgather_object(value if self.is_root else None, name)[0]

    def run_on_all(self, prepare: Callable[[], T], name: str, by_root: bool = False) -> T:
        """Run `prepare` on every rank and return its result; a UserError on one rank is raised on all of them.

        Args:
            prepare: may raise a UserError.
            name: of the collective.
            by_root: whether only the root acts, so that the message does not name the rank.

        Raises:
            CollectiveError: on every rank, with the message of the first rank that failed.
        """
        result, failure = None, ["", int(ExitStatus.FINISHED)]
        try:
            result = prepare()
        except UserError as error:
            failure = [str(error), int(error.status)]
        failures = self.allgather_object(failure, name)
        failed = [rank for rank, (message, _) in enumerate(failures) if message]
        if failed:
            message, status = failures[failed[0]]
            everywhere = by_root or all(other == failures[0] for other in failures)
            of = "" if everywhere else f" (rank {failed[0]} of {self.size})"
            raise CollectiveError(message + of, ExitStatus(status))
        return result  # type: ignore[return-value]

    def run_on_root(self, act: Callable[[], T], name: str) -> Optional[T]:
        """Run `act` on the root alone; return None elsewhere; errors are raised on every rank, as in `run_on_all`."""
        return self.run_on_all(lambda: act() if self.is_root else None, name, by_root=True)

    def require_equal(
        self,
        facts: Mapping[str, str],
        what: str,
        advice: str = "start every rank with the same command, files and code",
        status: ExitStatus = ExitStatus.BAD_CONFIG,
    ) -> None:
        """Raise CollectiveError on every rank, naming ranks and keys, unless all ranks pass equal facts.

        Args:
            facts: this rank's facts, by name.
            what: what is compared, for the message; also the name of the collective.
            advice: end of the message.
            status: exit status of the error.
        """
        ranks = self.allgather_object([socket.gethostname(), dict(facts)], what)
        (first_host, first), *_ = ranks
        differences = [
            f"rank {rank} ({host}) has {key} {_short(other.get(key))}, "
            f"rank 0 ({first_host}) has {_short(first.get(key))}"
            for rank, (host, other) in enumerate(ranks)
            for key in {**first, **other}
            if first.get(key) != other.get(key)
        ]
        if differences:
            raise CollectiveError(f"{what}: ranks differ: {'; '.join(differences)}: {advice}", status)

    def __enter__(self: G) -> G:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        shared = error is None or isinstance(error, (CollectiveError, SystemExit)) or self.size == 1
        if not shared:
            self._abort(error)
        if isinstance(error, CollectiveError) and self.is_root:
            print_error(str(error))
        # Wait until the root has reported the error, because a launcher kills the others when the first rank fails.
        self.leave()
        if isinstance(error, CollectiveError):
            raise SystemExit(int(error.status)) from None

    def _abort(self, error: Optional[BaseException]) -> NoReturn:
        status = int(ExitStatus.INTERNAL)
        where = f"rank {self.rank} on {socket.gethostname()}"
        try:
            if isinstance(error, KeyboardInterrupt):
                status = 128 + signal.SIGINT
                if self.is_root:
                    print_error("interrupted")
            elif isinstance(error, BrokenPipeError):
                status = 128 + signal.SIGPIPE  # the reader has closed the pipe, so nothing is reported
            elif self.is_peer_failure(error):
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
        finally:  # even if the error cannot be written
            self.abort(status)


def refuse_without_pmix(launch: Launch) -> None:
    """Refuse an srun without PMIx; call it before MPI starts, which reports this in many lines a rank or not at all."""
    if launch.name == "srun" and launch.size > 1 and "PMIX_RANK" not in os.environ:
        _refuse(
            launch,
            f"srun started {launch.size} tasks without PMIx, so each would run as a single-worker job: use "
            "srun --mpi=pmix; srun --mpi=list shows what this Slurm supports",
        )


def refuse_split_world(launch: Launch, size: int) -> None:
    """Refuse a group whose size differs from the number of processes that the launcher started."""
    if launch.name != "none" and launch.size != size:
        _refuse(
            launch,
            f"{launch.name} started {launch.size} processes, but each finds a world of {size}: the launcher and "
            "Horovod use different MPI libraries; use horovodrun, the mpirun that Horovod was built with, or "
            "srun --mpi=pmix; run launch/doctor.py under the same launcher",
        )


def _refuse(launch: Launch, message: str) -> NoReturn:
    """End processes that cannot communicate: the first reports why, and all wait so that it can do so."""
    if launch.rank == 0:
        print_error(message)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # with which a launcher ends the others when the first has exited
    time.sleep(_FIRST_WORD)
    raise SystemExit(int(ExitStatus.BAD_CONFIG))


def _short(value: Optional[str]) -> str:
    """Return the value, or the beginning of a long one, so that it fits on a line."""
    if value is None:
        return "none"
    return value if len(value) <= 40 else value[:12] + "..."
