"""Stop requests: a signal, a file or a deadline only sets a reason, whatever the program is doing."""

import os
import signal
import time
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.cluster.start_signals import SIGNALS
from lstm_dist.run import stop_request
from lstm_dist.run.stop_request import FILE, PLANNED, StopRequest, remove_planned


class PressedWhileFreed:
    """Sends a signal while it is freed, as often happens to arrays; Python ignores exceptions raised there."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(10):  # the handler runs between two bytecode instructions
            pass


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_sets_its_name_as_the_reason(number: int):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_requested()
        PressedWhileFreed(number)
        assert stop.is_requested()
        assert stop.reason == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_hangup_is_ignored_under_nohup():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_first_of_many_signals_is_the_reason():
    with StopRequest() as stop:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_requested()
        assert stop.reason == "SIGUSR1"


def test_stop_file_is_checked_at_intervals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    looks = []
    original: Callable = Path.exists
    monkeypatch.setattr(Path, "exists", lambda self: looks.append(self) or original(self))
    monkeypatch.setattr(stop_request, "_LOOK_EVERY", 0.05)
    stop = StopRequest()
    stop.watch(tmp_path, float("inf"))
    assert not any(stop.is_requested() for _ in range(1000))
    assert len(looks) < 100
    (tmp_path / "STOP").touch()
    time.sleep(0.06)
    assert stop.is_requested()
    assert stop.reason == "the file STOP"
    stop.remove_file()
    assert not list(tmp_path.iterdir())


def test_deadline_requests_a_stop(tmp_path: Path):
    stop = StopRequest()
    stop.watch(tmp_path, time.monotonic() + 0.05)
    assert not stop.is_requested()
    time.sleep(0.06)
    assert stop.is_requested()
    assert stop.reason == "--time-limit"


@pytest.mark.parametrize(("content", "is_removed"), [(PLANNED, True), ("", False), ("at lunch", False)])
def test_request_of_a_killed_supervisor_is_removed_and_that_of_a_user_is_not(
    tmp_path: Path, content: str, is_removed: bool
):
    remove_planned(tmp_path)
    (tmp_path / FILE).write_text(content)
    remove_planned(tmp_path)
    assert (tmp_path / FILE).exists() != is_removed
