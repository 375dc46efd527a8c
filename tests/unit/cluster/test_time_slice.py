"""Short time slices are requested, and threads that are started later inherit them."""

import os
import platform
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_dist.cluster import time_slice

ROOT = Path(__file__).resolve().parents[3]
ASK = """
import os, re, threading
from pathlib import Path
from lstm_dist.cluster.time_slice import request_short_slices
taken = request_short_slices()
def look():
    found = re.search(r"se.slice *: *(\\d+)", Path("/proc/thread-self/sched").read_text())
    print(taken, found and found[1])
thread = threading.Thread(target=look)
thread.start(); thread.join()
"""


def linux() -> tuple:
    return tuple(int(part) for part in platform.release().split(".")[:2])


def test_threads_started_later_have_short_slices():
    said = subprocess.run([sys.executable, "-c", ASK], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30)
    taken, nanoseconds = said.stdout.split()
    if linux() < (6, 12) or nanoseconds == "None":
        pytest.skip("a time slice of its own needs Linux 6.12, and SCHED_DEBUG to be seen")
    assert (taken, nanoseconds) == ("True", "100000")


def test_nice_value_and_policy_chosen_by_the_user_are_kept():
    nice = "import os\nos.nice(5)" + ASK + "print(os.nice(0))"
    said = subprocess.run(
        [sys.executable, "-c", nice], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30
    )
    assert said.stdout.split()[-1] == str(os.nice(0) + 5)
    batch = "import os\nos.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))" + ASK
    batch += "print(os.sched_getscheduler(0) == os.SCHED_BATCH)"
    said = subprocess.run(
        [sys.executable, "-c", batch], cwd=ROOT, check=True, capture_output=True, text=True, timeout=30
    )
    assert (said.stdout.split()[0], said.stdout.split()[-1]) == ("False", "True")


def test_no_short_slices_on_an_unknown_architecture(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("platform.machine", lambda: "riscv64")
    assert not time_slice.request_short_slices()
