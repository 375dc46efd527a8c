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
from typing import Any, Dict, List, NamedTuple, Optional

from lstm_dist.attempt import ATTEMPT
from lstm_dist.errors import ExitStatus
from lstm_dist.files import is_superseded, replace_text
from lstm_dist.run.run_card import read_card

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
        attempt: at the job, as in the environment; None if there is none.
    """

    status: int
    kind: str
    message: str
    rank: int
    host: str
    pid: int
    step: int
    time: float
    attempt: Optional[str] = None

    def describe(self) -> str:
        """Describe the cause in one line."""
        return f"rank {self.rank} on {self.host}, after step {self.step}: {self.message}"


def write_status(run_dir: Path, state: str, **facts: Any) -> None:
    """Replace status.json; `state` is running, finished, stopped or failed.

    Write errors are ignored, because only checkpoints and metrics are essential. Nothing is written if a later attempt
    at the job has begun.
    """
    who = {"host": socket.gethostname(), "pid": os.getpid(), "attempt": os.environ.get(ATTEMPT)}
    with contextlib.suppress(OSError):
        if not is_superseded(run_dir):
            _replace(run_dir / STATUS, {"state": state, "time": time.time(), **who, **facts})


def record_failure(run_dir: Path, rank: int, step: int, status: int, kind: str, message: str) -> None:
    """Write the first cause of this rank's failure in this attempt, unless a later attempt at the job has begun.

    Write errors are ignored, as they must not replace the cause.
    """
    path, attempt = run_dir / ERRORS / f"rank{rank}.json", os.environ.get(ATTEMPT)
    here = socket.gethostname()
    mine = FailureRecord(int(status), kind, message, rank, here, os.getpid(), step, time.time(), attempt)
    with contextlib.suppress(OSError):
        known = _read_failure(path)
        if not is_superseded(run_dir) and (known is None or known.attempt != attempt):
            _replace(path, mine._asdict())


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


def failures(run_dir: Path, attempt: Optional[str] = None) -> List[FailureRecord]:
    """Return why ranks ended, the earliest first.

    Args:
        run_dir: of the run.
        attempt: leave out what another attempt at the job has written; None for all.
    """
    known = [cause for cause in map(_read_failure, (run_dir / ERRORS).glob("rank*.json")) if cause is not None]
    return sorted((c for c in known if attempt is None or c.attempt == attempt), key=lambda cause: cause.time)


def _read_failure(path: Path) -> Optional[FailureRecord]:
    """Return a record; None if it is missing or invalid."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return FailureRecord(**json.loads(path.read_bytes()))
    return None


def first_failure(run_dir: Path, attempt: Optional[str] = None) -> Optional[FailureRecord]:
    """Return the earliest cause other than the loss of a peer; otherwise the earliest of all, None without any."""
    causes = failures(run_dir, attempt)
    real = [cause for cause in causes if cause.status != ExitStatus.PEER_LOST]
    return next(iter(real or causes), None)


def describe_failure(run_dir: Path, lost: str = "", attempt: Optional[str] = None) -> str:
    """Return why a run failed according to its files, in one line; empty if unknown.

    Args:
        run_dir: of the run.
        lost: the processes known to have ended without an error record; by default, the ranks without one.
        attempt: whose failure is described; None for any.
    """
    cause, status = first_failure(run_dir, attempt), read_status(run_dir)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return cause.describe()
    if not lost and status.get("state") not in ("running", "failed"):
        return ""
    who = lost or _describe_silent_ranks(run_dir, attempt)
    return f"{who} exited without reporting an error (at step {status['step']} or later)"


def silent_ranks(run_dir: Path, attempt: Optional[str] = None) -> Dict[int, str]:
    """Return the hosts of the ranks without an error record, by rank; empty if the ranks are not known."""
    spoke = {cause.rank for cause in failures(run_dir, attempt)}
    ranks = read_card(run_dir).get("ranks", [])
    return {rank: str(facts["host"]) for rank, facts in enumerate(ranks) if rank not in spoke}


def _describe_silent_ranks(run_dir: Path, attempt: Optional[str]) -> str:
    silent = silent_ranks(run_dir, attempt)
    if len(silent) > 1 and not failures(run_dir, attempt):
        return f"all {len(silent)} ranks"
    return ", ".join(f"rank {rank} on {host}" for rank, host in silent.items()) or "a rank"


def _replace(path: Path, record: Any) -> None:
    replace_text(path, json.dumps(record, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    if read_status(Path(sys.argv[1])).get("attempt") == os.environ.get(ATTEMPT):  # ignore another job's status
        sys.stdout.write(f"{describe_failure(Path(sys.argv[1]), attempt=os.environ.get(ATTEMPT))}\n")
