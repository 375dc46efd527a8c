"""Ranks that act as one: what they tell each other, and how a mistake or a failure of one ends all.

What carries the texts is left open: Horovod where a model is trained (exchange.py), MPI alone where text is prepared
(mpi.py). A group of one is the same code with nobody to tell.
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
from typing import Callable, List, Mapping, NoReturn, Optional, Type, TypeVar

from lstm_dist.cluster.launch_env import Launch
from lstm_dist.errors import ExitStatus, UserError, print_error

T = TypeVar("T")
G = TypeVar("G", bound="Group")

_FIRST_WORD = 2.0  # seconds in which a launcher must not be given a reason to end the others


class SettledError(UserError):
    """A UserError that every rank raises at the same moment, so that all can leave in an orderly way."""


class Group(ABC):
    """All ranks of a job, seen from one of them.

    Use it as a context. Leaving by an exception that the other ranks do not share ends them too.

    Attributes:
        rank, size: this one among all.
        is_root: whether this is the one that writes.
    """

    def __init__(self, rank: int, size: int) -> None:
        self.rank, self.size = rank, size
        self.is_root = rank == 0

    @abstractmethod
    def gather_text(self, text: str, name: str) -> List[str]:
        """Every rank's text, in the order of ranks, on every rank; `name` is the same on all of them."""

    @abstractmethod
    def leave(self) -> None:
        """Wait for all, and part."""

    @abstractmethod
    def end_all(self, status: int) -> NoReturn:
        """End this process, and with it those of the other ranks."""

    def is_peer_failure(self, error: Optional[BaseException]) -> bool:  # noqa: ARG002 - where a peer's end ends all
        """Whether the error only tells of another rank's."""
        return False

    def share_text(self, text: str, name: str) -> str:
        """The root's text, on every rank."""
        return self.gather_text(text if self.is_root else "", name)[0]

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

    def __enter__(self: G) -> G:
        return self

    def __exit__(
        self, kind: Optional[Type[BaseException]], error: Optional[BaseException], trace: Optional[TracebackType]
    ) -> None:
        shared = error is None or isinstance(error, (SettledError, SystemExit)) or self.size == 1
        if not shared:
            self._abort(error)
        if isinstance(error, SettledError) and self.is_root:
            print_error(str(error))
        # Nobody leaves before the root has said why: a launcher kills the rest when the first one ends with an error.
        self.leave()
        if isinstance(error, SettledError):
            raise SystemExit(int(error.status)) from None

    def _abort(self, error: Optional[BaseException]) -> NoReturn:
        status = int(ExitStatus.INTERNAL)
        where = f"rank {self.rank} on {socket.gethostname()}"
        try:
            if isinstance(error, BrokenPipeError):
                status = 128 + signal.SIGPIPE  # whoever read our output has left, and needs no words
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
        finally:  # also where nobody takes the words
            self.end_all(status)


def refuse_without_pmix(launch: Launch) -> None:
    """Before MPI is started, which would say the same in twenty lines a rank, or nothing at all."""
    if launch.name == "srun" and launch.size > 1 and "PMIX_RANK" not in os.environ:
        _refuse(
            launch,
            f"srun started {launch.size} tasks without PMIx, and each would believe to be alone: use srun --mpi=pmix; "
            "srun --mpi=list shows what this Slurm has",
        )


def refuse_lonely(launch: Launch, size: int) -> None:
    """Where the launcher started several processes, and each finds itself in a group of another size."""
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
