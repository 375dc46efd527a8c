"""Run a real program, return its output and exit status, and check that it leaves no process."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence

from lstm_dist.run.checkpoint_dir import step_of

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ("python", str(ROOT / "jobs" / "train.py"))
SAMPLE = ("python", str(ROOT / "jobs" / "sample.py"))
# Flags of a run that takes little longer than its imports.
TINY = ("--hidden-size=8", "--global-batch-size=4", "--seq-len=5", "--max-chars=600", "--epochs=2")

FAULTY = ROOT / "tests" / "support" / "faulty_train.py"

MARK = "LSTM_DIST_TEST_PROGRAM"
_GRACE = 10.0  # seconds for a launcher to end its workers


def run(
    argv: Sequence[str],
    timeout: float = 120,
    cwd: Optional[Path] = None,
    env: Optional[Mapping[str, Optional[str]]] = None,
    interrupt_when: Optional[Callable[[], bool]] = None,
    interrupt: Callable[[int], None] = lambda pid: os.killpg(pid, signal.SIGINT),
    then: Callable[[], None] = lambda: None,
) -> "subprocess.CompletedProcess[str]":
    """Run a program to its end.

    Args:
        argv: "python" in it stands for the interpreter of the tests, whose folder is the first on PATH.
        timeout: seconds until the program and everything that it started are killed.
        cwd: its working directory.
        env: variables added to this process's own; None removes one.
        interrupt_when: interrupt the program as soon as this holds.
        interrupt: how, given the program's process id; by default like Ctrl-C in a terminal: SIGINT to its group.
        then: called at its end, before the check for processes that it left.

    Returns:
        Its exit status, stdout and stderr.

    Raises:
        TimeoutError: after `timeout` seconds, with the ends of stdout and stderr.
        AssertionError: if a process that it started still runs `_GRACE` seconds after the program ended.
    """
    mark, environ = uuid.uuid4().hex, environment(env)
    command = [sys.executable if word == "python" else word for word in argv]
    process = subprocess.Popen(
        command, cwd=cwd, env={**environ, MARK: mark}, start_new_session=True, text=True, encoding="utf-8",
        errors="backslashreplace", stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    if interrupt_when:
        threading.Thread(target=_interrupt, args=(process, interrupt_when, interrupt), daemon=True).start()
    try:
        stdout, stderr = process.communicate(timeout=timeout)
    except BaseException as error:
        # On SIGTERM, a launcher ends its workers as well, which are in sessions of their own.
        _kill([process.pid], signal.SIGTERM)
        wait_for_end(mark, 3)
        _kill(started_by(mark), signal.SIGKILL)
        stdout, stderr = process.communicate(timeout=_GRACE)
        if isinstance(error, subprocess.TimeoutExpired):
            ends = f"stdout ends:\n{stdout[-2000:]}\nstderr ends:\n{stderr[-2000:]}"
            raise TimeoutError(f"not at its end after {timeout:g} s: {' '.join(command)}\n{ends}") from None
        raise
    then()
    left = wait_for_end(mark, _GRACE)
    if left:
        _kill(left, signal.SIGKILL)
        raise AssertionError(f"processes {left} outlived {' '.join(command)}, which ended with {process.returncode}")
    return subprocess.CompletedProcess(command, process.returncode, stdout, stderr)


def faulty(kind: str, rank: int, step: int, file: Path) -> List[str]:
    """Return the command line of jobs/train.py with a fault; see faulty_train.py."""
    return ["python", str(FAULTY), f"{kind}:{rank}:{step}:{file}"]


def newest(run_dir: Path) -> Path:
    """Return the last checkpoint of a run."""
    return max((run_dir / "checkpoints").glob("step-*.safetensors"), key=step_of)


def epochs(run_dir: Path) -> int:
    """Return the number of epochs that a run has logged."""
    metrics = run_dir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def environment(extra: Optional[Mapping[str, Optional[str]]] = None) -> Dict[str, str]:
    """Return this process's environment with the interpreter's folder first on PATH, updated with `extra`."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    merged = {**os.environ, "PATH": path, **(extra or {})}
    return {name: value for name, value in merged.items() if value is not None}


def started_by(mark: str) -> List[int]:
    """Return the live processes that inherited a program's mark, whatever their process group or session."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                variables = (entry / "environ").read_bytes().split(b"\0")
            except OSError:
                continue  # it has just ended, or is another user's
            if f"{MARK}={mark}".encode() in variables:
                found.append(int(entry.name))
    return found


def _interrupt(process: "subprocess.Popen[str]", when: Callable[[], bool], how: Callable[[int], None]) -> None:
    while process.poll() is None:
        if when():
            how(process.pid)
            return
        time.sleep(0.05)


def wait_for_end(mark: str, seconds: float) -> List[int]:
    deadline = time.monotonic() + seconds
    left = started_by(mark)
    while left and time.monotonic() < deadline:
        time.sleep(0.05)
        left = started_by(mark)
    return left


def _kill(pids: Sequence[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)
