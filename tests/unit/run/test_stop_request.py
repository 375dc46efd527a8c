"""A signal, a file and a deadline only leave a word, wherever they come."""

import os
import signal
import time
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.run import stop_request
from lstm_dist.run.stop_request import SIGNALS, StopRequest


class PressedWhileFreed:
    """An object that is being freed when the signal comes, as arrays often are: Python ignores what is raised."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(10):  # the handler runs between two instructions
            pass


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_leaves_its_name(number: int):
    before = signal.getsignal(number)
    with StopRequest() as stop:
        assert not stop.is_requested()
        PressedWhileFreed(number)
        assert stop.is_requested()
        assert stop.reason == signal.Signals(number).name
    assert signal.getsignal(number) is before


def test_under_nohup_the_end_of_the_terminal_is_none_of_the_run():
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with StopRequest() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert not stop.is_requested()
    finally:
        signal.signal(signal.SIGHUP, before)


def test_the_first_of_many_is_the_reason():
    with StopRequest() as stop:
        for _ in range(20):
            os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGTERM)
        assert stop.is_requested()
        assert stop.reason == "SIGUSR1"


def test_a_file_is_looked_for_twice_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
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


def test_the_time_is_up(tmp_path: Path):
    stop = StopRequest()
    stop.watch(tmp_path, time.monotonic() + 0.05)
    assert not stop.is_requested()
    time.sleep(0.06)
    assert stop.is_requested()
    assert stop.reason == "--time-limit"
