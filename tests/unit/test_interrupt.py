"""Ctrl-C gets lost where Python ignores exceptions, and not in here."""

import os
import signal
from typing import List

import pytest

from lstm_dist.interrupt import Interrupt


class PressedWhileFreed:
    """An object that is being freed when Ctrl-C comes, as MXNet's arrays often are: Python ignores what is raised."""

    def __del__(self) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        for _ in range(10):  # the handler runs between two instructions
            pass


def run(items: range, press_after: int, done: List[int]) -> None:
    with Interrupt() as interrupt:
        for item in interrupt.between(items):
            done.append(item)
            if item == press_after:
                PressedWhileFreed()


@pytest.mark.parametrize("press_after", [0, 2, 4])
def test_no_item_follows_ctrl_c(press_after: int):
    done: List[int] = []
    with pytest.raises(KeyboardInterrupt):
        run(range(5), press_after, done)
    assert done == list(range(press_after + 1))


def fail_after_ctrl_c() -> None:
    with Interrupt():
        os.kill(os.getpid(), signal.SIGINT)
        raise ValueError("the first cause")


def test_what_was_there_before_is_restored():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt() as interrupt:
        assert list(interrupt.between("abc")) == ["a", "b", "c"]
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(ValueError, match="first"):
        fail_after_ctrl_c()
    assert signal.getsignal(signal.SIGINT) is before
