"""The watchdog ends a stuck worker in time and reports where it was; it does not end one within its limit."""

import json
import sys
import time
from pathlib import Path
from typing import Tuple

import pytest

from tests.support.programs import run

pytestmark = pytest.mark.slow

PROGRAM = """
import ctypes, json, sys, time
from lstm_dist.run.watchdog import Watchdog
kind, word = sys.argv[1:]
with Watchdog(1.0) as watchdog:
    watchdog.report_to(lambda message, status: open(word, "w").write(json.dumps([message, int(status)])), "try this")
    for step in range(30):
        time.sleep(0.05)
        watchdog.beat("step", step)
    print(time.time(), flush=True)
    if kind == "hang":
        time.sleep(60)
    if kind == "lock":
        ctypes.PyDLL(None).sleep(60)  # with Python's lock held
    if kind == "wait":
        exec(compile("import time; time.sleep(60)", "x", "exec"), {"__name__": "mxnet.ndarray"})
    if kind == "samples":
        watchdog.beat("samples", 30)
        time.sleep(2)
        watchdog.beat("step", 31)
    if kind == "off":
        watchdog.allow(1e6, 30)
        time.sleep(3)
"""


def watched(tmp_path: Path, kind: str) -> Tuple[int, float, str, list]:
    """Return the exit status, the seconds from the last beat to the end, stderr, and what the watchdog reported."""
    word = tmp_path / "word"
    done = run([sys.executable, "-c", PROGRAM, kind, str(word)], timeout=30)
    seconds = time.time() - float(done.stdout)
    return done.returncode, seconds, done.stderr, json.loads(word.read_text()) if word.exists() else []


@pytest.mark.parametrize(
    ("kind", "code", "words"),
    [("hang", 70, "is stuck in its own code"), ("wait", 76, "is waiting for its device or another rank; try this")],
)
def test_worker_without_beats_is_ended(tmp_path: Path, kind: str, code: int, words: str):
    status, seconds, stderr, (message, left) = watched(tmp_path, kind)
    assert status == code
    assert 1.0 <= seconds < 2.3
    assert left == code
    assert message.startswith("no step for 1 s (--stall-timeout 1): it ")
    assert message.endswith(words)
    assert "most recent call first" in stderr  # the stack of every thread


def test_worker_that_holds_the_gil_is_ended(tmp_path: Path):
    status, seconds, stderr, _ = watched(tmp_path, "lock")
    assert status == 1
    assert 1.0 <= seconds < 2.5
    assert "Timeout" in stderr


@pytest.mark.parametrize("kind", ["nothing", "samples", "off"])
def test_worker_within_its_limit_is_not_ended(tmp_path: Path, kind: str):
    status, _, stderr, left = watched(tmp_path, kind)
    assert (status, stderr, left) == (0, "", [])
