"""How a run is doing, in files: `status.json`, and `errors/rank<r>.json` of each rank that failed.

A launcher flattens every exit status to 1 and shows the survivors' complaints last. The first cause has to be where a
person, or the program that restarts the job, can find it.
"""

import contextlib
import json
import os
import socket
import sys
import time
from pathlib import Path
from typing import Any, List, NamedTuple, Optional

from lstm_dist.cluster.launch_env import ATTEMPT
from lstm_dist.errors import ExitStatus

STATUS = "status.json"
ERRORS = "errors"


class Cause(NamedTuple):
    """Why a rank ended.

    Attributes:
        status: an ExitStatus.
        kind: the exception's name.
        message: one line.
        rank, host, pid: whose it is.
        step: the last that was finished.
        time: seconds since 1970.
    """

    status: int
    kind: str
    message: str
    rank: int
    host: str
    pid: int
    step: int
    time: float

    def describe(self) -> str:
        """One line."""
        return f"rank {self.rank} on {self.host}, after step {self.step}: {self.message}"


def write_status(run_dir: Path, state: str, **facts: Any) -> None:
    """Replace status.json; `state` is running, finished, stopped or failed.

    A disk that does not take it ends nothing: checkpoints and metrics are what a run is worth.
    """
    who = {"host": socket.gethostname(), "pid": os.getpid(), "attempt": os.environ.get(ATTEMPT)}
    with contextlib.suppress(OSError):
        _replace(run_dir / STATUS, {"state": state, "time": time.time(), **who, **facts})


def record(run_dir: Path, rank: int, step: int, status: int, kind: str, message: str) -> None:
    """Leave the first cause of this rank's end; a disk that does not take it changes nothing about the end."""
    path = run_dir / ERRORS / f"rank{rank}.json"
    cause = Cause(int(status), kind, message, rank, socket.gethostname(), os.getpid(), step, time.time())
    with contextlib.suppress(OSError):
        if not path.exists():
            _replace(path, cause._asdict())


def clear(run_dir: Path) -> None:
    """Forget the causes of an earlier part of the run."""
    for path in (run_dir / ERRORS).glob("rank*.json"):
        path.unlink()


def read_status(run_dir: Path) -> Any:
    """What status.json says; an empty mapping where there is none."""
    try:
        return json.loads((run_dir / STATUS).read_bytes())
    except (OSError, ValueError):
        return {}


def first_cause(run_dir: Path) -> Optional[Cause]:
    """The earliest cause that is not merely the loss of another rank; where there is none, the earliest of all."""
    causes: List[Cause] = []
    for path in (run_dir / ERRORS).glob("rank*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            causes.append(Cause(**json.loads(path.read_bytes())))
    causes.sort(key=lambda cause: cause.time)
    real = [cause for cause in causes if cause.status != ExitStatus.PEER_LOST]
    return next(iter(real or causes), None)


def why(run_dir: Path, lost: str = "") -> str:
    """Why a run that did not end well has ended, as far as its files tell; one line, empty where they do not.

    Args:
        run_dir: of the run.
        lost: who is known to have ended without a word; otherwise the ranks that have left none.
    """
    cause, status = first_cause(run_dir), read_status(run_dir)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return cause.describe()
    if not lost and status.get("state") not in ("running", "failed"):
        return ""
    return f"{lost or _silent_ranks(run_dir)} ended without a word after step {status['step']} or later"


def _silent_ranks(run_dir: Path) -> str:
    """The ranks that left no error, and their hosts."""
    try:
        ranks = json.loads((run_dir / "run.json").read_bytes())["ranks"]
    except (OSError, ValueError, KeyError):
        return "a rank"
    said = {path.stem for path in (run_dir / ERRORS).glob("rank*.json")}
    silent = [f"rank {rank} on {facts['host']}" for rank, facts in enumerate(ranks) if f"rank{rank}" not in said]
    return f"all {len(ranks)} ranks" if len(silent) == len(ranks) > 1 else ", ".join(silent) or "a rank"


def _replace(path: Path, record: Any) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    text = json.dumps(record, indent=2, ensure_ascii=False) + "\n"
    try:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")
        partial.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


if __name__ == "__main__":
    if read_status(Path(sys.argv[1])).get("attempt") == os.environ.get(ATTEMPT):  # and not of another job's run
        sys.stdout.write(f"{why(Path(sys.argv[1]))}\n")
