"""The status of a run in files: `status.json`, and `errors/rank<r>.json` for each rank that failed.

A launcher maps every exit status to 1 and shows the errors of the surviving ranks last. These files make the first
cause available to users and to the program that restarts the job.
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
from lstm_dist.files import replace_text

STATUS = "status.json"
ERRORS = "errors"


class FailureRecord(NamedTuple):
    """Why a rank ended.

    Attributes:
        status: an ExitStatus.
        kind: the exception's name.
        message: one line.
        rank, host, pid: of the failed process.
        step: the last finished one.
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
        """Describe the cause in one line."""
        return f"rank {self.rank} on {self.host}, after step {self.step}: {self.message}"


def write_status(run_dir: Path, state: str, **facts: Any) -> None:
    """Replace status.json; `state` is running, finished, stopped or failed.

    Write errors are ignored, because only checkpoints and metrics are essential.
    """
    who = {"host": socket.gethostname(), "pid": os.getpid(), "attempt": os.environ.get(ATTEMPT)}
    with contextlib.suppress(OSError):
        _replace(run_dir / STATUS, {"state": state, "time": time.time(), **who, **facts})


def record_failure(run_dir: Path, rank: int, step: int, status: int, kind: str, message: str) -> None:
    """Write the first cause of this rank's failure; write errors are ignored, as they must not replace the cause."""
    path = run_dir / ERRORS / f"rank{rank}.json"
    cause = FailureRecord(int(status), kind, message, rank, socket.gethostname(), os.getpid(), step, time.time())
    with contextlib.suppress(OSError):
        if not path.exists():
            _replace(path, cause._asdict())


def clear_failures(run_dir: Path) -> None:
    """Delete the causes of an earlier part of the run."""
    for path in (run_dir / ERRORS).glob("rank*.json"):
        path.unlink()


def read_status(run_dir: Path) -> Any:
    """Return the content of status.json; an empty mapping if it is missing or invalid."""
    try:
        return json.loads((run_dir / STATUS).read_bytes())
    except (OSError, ValueError):
        return {}


def first_failure(run_dir: Path) -> Optional[FailureRecord]:
    """Return the earliest cause other than the loss of a peer; otherwise the earliest of all, None without any."""
    causes: List[FailureRecord] = []
    for path in (run_dir / ERRORS).glob("rank*.json"):
        with contextlib.suppress(OSError, ValueError, TypeError):
            causes.append(FailureRecord(**json.loads(path.read_bytes())))
    causes.sort(key=lambda cause: cause.time)
    real = [cause for cause in causes if cause.status != ExitStatus.PEER_LOST]
    return next(iter(real or causes), None)


def describe_failure(run_dir: Path, lost: str = "") -> str:
    """Return why a run failed according to its files, in one line; empty if unknown.

    Args:
        run_dir: of the run.
        lost: the processes known to have ended without an error record; by default, the ranks without one.
    """
    cause, status = first_failure(run_dir), read_status(run_dir)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return cause.describe()
    if not lost and status.get("state") not in ("running", "failed"):
        return ""
    return f"{lost or _silent_ranks(run_dir)} exited without reporting an error (at step {status['step']} or later)"


def _silent_ranks(run_dir: Path) -> str:
    """Return the ranks without an error record, and their hosts."""
    try:
        ranks = json.loads((run_dir / "run.json").read_bytes())["ranks"]
    except (OSError, ValueError, KeyError):
        return "a rank"
    said = {path.stem for path in (run_dir / ERRORS).glob("rank*.json")}
    silent = [f"rank {rank} on {facts['host']}" for rank, facts in enumerate(ranks) if f"rank{rank}" not in said]
    return f"all {len(ranks)} ranks" if len(silent) == len(ranks) > 1 else ", ".join(silent) or "a rank"


def _replace(path: Path, record: Any) -> None:
    replace_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if read_status(Path(sys.argv[1])).get("attempt") == os.environ.get(ATTEMPT):  # ignore another job's status
        sys.stdout.write(f"{describe_failure(Path(sys.argv[1]))}\n")
