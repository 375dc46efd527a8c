"""How an attempt at a training job has ended, according to its launcher and the files in its run directory."""

import signal
import sys
from pathlib import Path
from typing import NamedTuple

from lstm_dist.errors import ExitStatus
from lstm_dist.programs.launcher_job import LauncherJob
from lstm_dist.run.checkpoint_dir import CheckpointDir, step_of
from lstm_dist.run.status import describe_failure, first_failure
from lstm_dist.run.stop_request import LAUNCHER_ENDED

NO_CHECKPOINT = -1
DIVERGED = (ExitStatus.NOT_FINITE, ExitStatus.DIVERGED)  # resumed, such a run diverges again


class Verdict(NamedTuple):
    """How an attempt ended.

    Attributes:
        status: an ExitStatus, or the launcher's own.
        may_restart: whether a restart may succeed.
        reason: one line; empty if the attempt finished or the workers have reported the reason.
        step: of the last checkpoint, or NO_CHECKPOINT.
    """

    status: int
    may_restart: bool
    reason: str
    step: int


def classify(job: LauncherJob, returncode: int) -> Verdict:
    """Return how an attempt ended, according to the files in its run directory.

    Args:
        job: that has ended.
        returncode: of the launcher.
    """
    step = last_step(job.run_dir)
    if returncode == 0:
        return Verdict(0, False, "", step)
    status = job.status()
    if not status:
        return classify_failed_start(job, returncode, step)
    if status["state"] == "stopped":
        reason = str(status.get("reason"))
        is_failure = reason.startswith("SIG") or reason == LAUNCHER_ENDED  # not a stop request of a user
        return Verdict(int(ExitStatus.STOPPED), is_failure, f"stopped by {reason}", step)
    # If horovodrun itself was killed by a signal, that is the cause, whatever its workers report.
    killed_by_signal = returncode < 0 and not job.was_killed and not job.is_direct
    lost = f"horovodrun ({signal.Signals(-returncode).name})" if killed_by_signal else ""
    attempt = str(job.attempt)
    cause, reason = first_failure(job.run_dir, attempt), describe_failure(job.run_dir, lost, attempt)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return Verdict(cause.status, cause.kind == "Stalled", reason, step)
    return Verdict(int(ExitStatus.PEER_LOST), True, reason, step)


def classify_failed_start(job: LauncherJob, returncode: int, step: int) -> Verdict:
    """Return how an attempt ended that did not reach training; the workers have reported the reason if they could."""
    if job.is_stopping:
        return Verdict(int(ExitStatus.STOPPED), False, "stopped before the first step", step)
    if job.start_failure:
        return Verdict(int(ExitStatus.PEER_LOST), True, job.start_failure, step)
    codes = job.exit_codes
    if not codes:
        sys.stderr.write(job.held_output)
    status = codes[0] if codes else abs(returncode)
    if returncode < 0 or not 0 <= status <= 128 or status == ExitStatus.PEER_LOST:
        return Verdict(int(ExitStatus.PEER_LOST), True, "a worker was lost while the job was starting", step)
    if status == 1 and step != NO_CHECKPOINT:  # not a worker's status, and the launcher has started this job before
        starter = "the worker could not start" if job.is_direct else "horovodrun could not start the workers"
        return Verdict(status, True, starter, step)
    return Verdict(status, False, "", step)


def last_step(run_dir: Path) -> int:
    """Return the step of the newest checkpoint, or NO_CHECKPOINT."""
    return max(map(step_of, CheckpointDir.of_run(run_dir).paths()), default=NO_CHECKPOINT)
