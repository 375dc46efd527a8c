"""Start a real program, see what it says and how it ends, and make sure that nothing of it is left."""

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
# Options that make a run cost little more than its imports.
TINY = ("--hidden-size=8", "--global-batch-size=4", "--seq-len=5", "--max-chars=600", "--epochs=2")

FAULTY = ROOT / "tests" / "support" / "faulty_train.py"

MARK = "LSTM_DIST_TEST_PROGRAM"
_GRACE = 10.0  # seconds that a launcher has to take its workers along


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
        argv: "python" in it is the interpreter of the tests, and its folder is the first on PATH.
        timeout: seconds until the program and everything that it started are killed.
        cwd: where it runs.
        env: variables on top of this process's own; None takes one away.
        interrupt_when: press Ctrl-C as soon as this holds.
        interrupt: how, given the program's process id: SIGINT to its process group is what a terminal does.
        then: what is done at its end, before anybody looks for what it has left.

    Returns:
        Its status, stdout and stderr.

    Raises:
        TimeoutError: with the ends of both outputs.
        AssertionError: when the program has ended and a process that it started has not, `_GRACE` seconds later.
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
        # A launcher that is asked politely takes its workers along; they are in sessions of their own.
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
    """jobs/train.py with a fault, see faults/faulty_train.py."""
    return ["python", str(FAULTY), f"{kind}:{rank}:{step}:{file}"]


def newest(run_dir: Path) -> Path:
    """The last checkpoint of a run."""
    return max((run_dir / "checkpoints").glob("step-*.safetensors"), key=step_of)


def epochs(run_dir: Path) -> int:
    """How many a run has told of."""
    metrics = run_dir / "metrics.jsonl"
    return len(metrics.read_text().splitlines()) if metrics.exists() else 0


def environment(extra: Optional[Mapping[str, Optional[str]]] = None) -> Dict[str, str]:
    """This process's environment with the interpreter's folder first on PATH and `extra` on top."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    merged = {**os.environ, "PATH": path, **(extra or {})}
    return {name: value for name, value in merged.items() if value is not None}


def started_by(mark: str) -> List[int]:
    """The living processes that inherited a program's mark, in whatever group or session they are by now."""
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
