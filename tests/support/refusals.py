"""Run command lines that are refused inside the process of the tests, which saves the start of a program for each.

Every program also has a test that starts it with invalid input, so that its exit status and stderr are tested.
"""

import os
import signal
from typing import Callable, List, NamedTuple, Sequence

import pytest

from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.cluster.start_signals import SIGNALS
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.errors import one_line_errors
from lstm_dist.programs import train
from tests.support.fake_world import FakeWorld, SilentStartup


class Refusal(NamedTuple):
    """How a program ended: its exit status, and its line on stderr without `error: `."""

    status: int
    message: str


def refusal(main: Callable[[List[str]], object], argv: Sequence[object], capsys: pytest.CaptureFixture) -> Refusal:
    """Call a program's `main` without MPI and Horovod, and return how it failed, with one line on stderr."""
    capsys.readouterr()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HorovodWorld, "open", FakeWorld)
        patch.setattr(MpiGroup, "open", FakeWorld)
        with pytest.raises(SystemExit) as ended, one_line_errors():
            main([str(word) for word in argv])
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1, printed.err
    line = printed.err.rstrip("\n")
    assert line.startswith("error: ")
    return Refusal(int(str(ended.value.code)), line[len("error: ") :])


def train_here(argv: Sequence[object]) -> int:
    """Train with one worker inside the process of the tests, without MPI and Horovod; return the exit status."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HorovodWorld, "open", FakeWorld)
        try:
            train_main([str(word) for word in argv])
        except SystemExit as ended:
            return int(str(ended.code))
    return 0


def train_main(argv: List[str]) -> None:
    """Call the `main` of jobs/train.py, and restore the umask and the signal handlers that it changes."""
    umask, handlers = os.umask(0o022), {number: signal.getsignal(number) for number in SIGNALS}
    try:
        train.main(SilentStartup(), Affinity(1, frozenset()), argv)  # type: ignore[arg-type]
    finally:
        os.umask(umask)
        for number, handler in handlers.items():
            signal.signal(number, handler)
