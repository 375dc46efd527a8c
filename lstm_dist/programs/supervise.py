"""Run a training job under horovodrun, forward its output, and restart it after failures that a restart may fix.

launch/local.sh and launch/cluster.sh start this program, with their own flags and those of jobs/train.py.
"""

import contextlib
import math
import shlex
import sys
import time
from pathlib import Path
from typing import Optional, Sequence

from lstm_dist.cluster.cuda_libs import require_driver
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import require_usable, unreachable
from lstm_dist.cluster.process_tree import adopt_orphans
from lstm_dist.errors import ExitStatus, print_error, printable
from lstm_dist.programs.launch_plan import TRAIN, LaunchPlan, parse
from lstm_dist.programs.launcher_job import LauncherJob, StopSignals
from lstm_dist.programs.verdict import NO_CHECKPOINT, Verdict, classify
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

DIVERGED = (ExitStatus.NOT_FINITE, ExitStatus.DIVERGED)  # resumed, such a run diverges again


def add_lost_hosts(verdict: Verdict, workers: Workers) -> Verdict:
    """Return the verdict; if workers were lost, with the hosts that cannot be reached as the reason."""
    if verdict.status != ExitStatus.PEER_LOST or not workers.hosts:
        return verdict
    lost = unreachable(workers.hosts, TRAIN)
    if not lost:
        return verdict
    return verdict._replace(may_restart=False, reason=f"{'; '.join(lost)}; {verdict.reason}")


def run(plan: LaunchPlan, settings: RunConfig, run_dir: Path, train_flags: Sequence[str]) -> Verdict:
    """Start the job, and restart it until it ends well, should not be restarted, or has no restart or time left.

    Args:
        plan: what to start.
        settings: that the flags stand for.
        run_dir: of the job.
        train_flags: flags of jobs/train.py for the first attempt.

    Returns:
        The verdict on the last attempt.
    """
    adopt_orphans()
    started, signals, env = time.monotonic(), StopSignals(), plan.workers.environment()
    restarts, best_step, flags = 0, NO_CHECKPOINT, list(train_flags)
    while True:
        is_local = not plan.workers.hosts
        job = LauncherJob(plan.command(flags), env, run_dir, settings.stall_timeout, is_local)
        signals.forward_to(job)
        verdict = add_lost_hosts(classify(job, job.wait()), plan.workers)
        if verdict.step > best_step:
            restarts, best_step = 0, verdict.step
        seconds_left = started + settings.time_limit_seconds - time.monotonic()
        is_stopping = signals.is_stopping or job.is_stopping
        if not verdict.may_restart or is_stopping or restarts >= plan.max_restarts or seconds_left < 1:
            return verdict
        restarts += 1
        print_error(
            f"{verdict.reason}; restarting from step {max(0, best_step)} (restart {restarts} of {plan.max_restarts})"
        )
        time_limit = [f"--time-limit={int(seconds_left)}s"] if math.isfinite(seconds_left) else []
        flags = [*train_flags, *time_limit, "--auto-resume"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a job, report how it ended and how to resume it, and return its status."""
    plan, train_flags = parse(argv)
    if plan.print_only:
        print(f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {shlex.join(plan.command(train_flags))}')
        return 0
    settings: RunConfig = parse_config(train_flags)
    require_driver()  # horovodrun loads MXNet, too, and says of any failure that Horovod has no Gloo or MPI
    if plan.workers.hosts:
        require_usable(plan.workers.hosts, TRAIN, plan.workers.interface)
    run_dir = choose_run_dir(settings.run_dir)
    if settings.run_dir is None:
        train_flags = [*train_flags, f"--run-dir={run_dir}"]
    verdict = run(plan, settings, run_dir, train_flags)
    if settings.run_dir is None and verdict.step == NO_CHECKPOINT:
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # succeeds if it is empty, because the job never began
    if verdict.reason:
        resume = f"; resume from step {verdict.step} with: {plan.resume_command(run_dir)}"
        can_resume = verdict.step != NO_CHECKPOINT and verdict.status not in DIVERGED
        prefix = "" if verdict.status == ExitStatus.STOPPED else "error: "
        sys.stderr.write(f"{prefix}{printable(verdict.reason)}{resume if can_resume else ''}\n")
    return verdict.status
