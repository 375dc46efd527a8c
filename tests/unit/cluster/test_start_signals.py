"""A signal during the start ends the process at once, with one line, even inside a library."""

import signal
import subprocess
import sys
from typing import Dict

import pytest

from lstm_dist.cluster.start_signals import SIGNALS, EndOnSignal, handled_signals
from tests.support.programs import ROOT, environment

CODE = """
import ctypes, signal, sys
from lstm_dist.cluster.start_signals import EndOnSignal, default_actions
with EndOnSignal():
    if sys.argv[1] == "without the lock":
        print("waits", flush=True)
        ctypes.CDLL(None).sleep(60)
    with default_actions():
        print("waits", flush=True)
        ctypes.PyDLL(None).sleep(60)  # Python's lock stays held, as in MPI_Init
"""


def end(number: int, how: str, **variables: str) -> "tuple[int, str]":
    """Return the exit status and stderr of a process that receives a signal while it is inside a library."""
    process = subprocess.Popen(
        [sys.executable, "-c", CODE, how], cwd=ROOT, env=environment(variables), text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        assert process.stdout
        assert process.stdout.readline() == "waits\n"
        process.send_signal(number)
        _, stderr = process.communicate(timeout=10)
    finally:
        process.kill()
        process.wait()
    return process.returncode, stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_signal_ends_a_process_that_waits_in_a_library(number: signal.Signals):
    assert end(number, "without the lock") == (128 + number, f"stopped by {number.name} while starting\n")


def test_signal_ends_a_process_that_holds_pythons_lock():
    assert end(signal.SIGTERM, "with the lock") == (-signal.SIGTERM, "")


@pytest.mark.parametrize(
    "variables",
    [{"OMPI_COMM_WORLD_RANK": "1", "OMPI_COMM_WORLD_SIZE": "2"}, {"HOROVOD_RANK": "1", "HOROVOD_SIZE": "2"}],
)
def test_only_the_first_rank_writes_the_line(variables: Dict[str, str]):
    assert end(signal.SIGTERM, "without the lock", **variables) == (128 + signal.SIGTERM, "")


def test_handlers_are_restored():
    before = {number: signal.getsignal(number) for number in SIGNALS}
    with EndOnSignal():
        assert all(signal.getsignal(number) is not before[number] for number in handled_signals())
    assert {number: signal.getsignal(number) for number in SIGNALS} == before
    assert signal.set_wakeup_fd(-1) == -1
