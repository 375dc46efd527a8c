"""Run a training job under horovodrun, forward its output, and restart it after failures that a restart may fix.

launch/local.sh and launch/cluster.sh start this program, with their own flags and those of jobs/train.py.
"""

import argparse
import contextlib
import math
import re
import shlex
import signal
import sys
import time
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface, require_usable, unreachable
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.cluster.process_tree import adopt_orphans
from lstm_dist.errors import ExitStatus, UserError, print_error, printable
from lstm_dist.programs.launcher_job import LauncherJob, StopSignals
from lstm_dist.run.checkpoint_dir import CheckpointDir, step_of
from lstm_dist.run.resume_command import resume_flags
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.run.status import describe_failure, first_failure
from lstm_dist.run.stop_request import LAUNCHER_ENDED
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

TRAIN = ROOT / "jobs" / "train.py"
NO_CHECKPOINT = -1
DIVERGED = (ExitStatus.NOT_FINITE, ExitStatus.DIVERGED)  # resumed, such a run diverges again


class LaunchPlan(NamedTuple):
    """Which workers to start, and how often.

    Attributes:
        workers: and the hosts that they run on.
        max_restarts: the maximum number of restarts in a row without a new checkpoint.
        print_only: whether to print the command instead of running it.
    """

    workers: Workers
    max_restarts: int
    print_only: bool

    def command(self, flags: Sequence[str]) -> List[str]:
        """Return the command line of a job with these flags of jobs/train.py."""
        return self.workers.command([str(TRAIN), *flags])

    def resume_command(self, run_dir: Path) -> str:
        """Return the command with which a user resumes the job from the current directory."""
        script = ROOT / "launch" / ("cluster.sh" if self.workers.hosts else "local.sh")
        name = script.relative_to(ROOT) if Path.cwd() == ROOT else script
        return shlex.join([str(name), *self.workers.flags(), *resume_flags(run_dir)])


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
    cause, reason = first_failure(job.run_dir), describe_failure(job.run_dir, lost)
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


def add_lost_hosts(verdict: Verdict, workers: Workers) -> Verdict:
    """Return the verdict; if workers were lost, with the hosts that cannot be reached as the reason."""
    if verdict.status != ExitStatus.PEER_LOST or not workers.hosts:
        return verdict
    lost = unreachable(workers.hosts, TRAIN)
    if not lost:
        return verdict
    return verdict._replace(may_restart=False, reason=f"{'; '.join(lost)}; {verdict.reason}")


def last_step(run_dir: Path) -> int:
    """Return the step of the newest checkpoint, or NO_CHECKPOINT."""
    return max(map(step_of, CheckpointDir.of_run(run_dir).paths()), default=NO_CHECKPOINT)


def parse(argv: Optional[Sequence[str]]) -> "tuple[LaunchPlan, List[str]]":
    """Parse the launcher's own flags, and return those of jobs/train.py beside them.

    Raises:
        UserError: naming the flag.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # launch/local.sh --help is the help
    parser.add_argument("-n", nargs="?", const="")
    parser.add_argument("-H", dest="hosts", nargs="?", const="")
    parser.add_argument("--hostfile", nargs="?", const="")
    parser.add_argument("--interface", default="", nargs="?")
    for name in ("gloo", "mpi"):
        parser.add_argument(f"--{name}", dest="controllers", action="append_const", const=name, default=[])
    parser.add_argument("--max-restarts", default="0", nargs="?")
    parser.add_argument("--print", dest="print_only", action="store_true")
    given, train_flags = parser.parse_known_args(argv)
    if len(set(given.controllers)) > 1:
        raise UserError("--mpi: cannot be combined with --gloo: leave one of them out")
    if given.n is not None and (given.hosts is not None or given.hostfile is not None):
        raise UserError("-n: cannot be combined with -H or --hostfile, which give the numbers of workers: leave it out")
    number = "2" if given.n is None else given.n
    if number.startswith("p"):  # -np 4, -np4 or -np=4, as horovodrun and mpirun take it
        wanted = next((word for word in [number.lstrip("p="), *train_flags] if word.isdigit()), "2")
        raise UserError(f"-np: the number of workers is given as -n {wanted}")
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"-n '{number}': should be a number of workers from 1 to 9999")
    if not re.fullmatch(r"[0-9]{1,6}", given.max_restarts or ""):
        raise UserError(f"--max-restarts '{given.max_restarts or ''}': should be a whole number from 0 to 999999")
    hosts = choose_hosts(given.hosts, given.hostfile)
    interface = parse_interface(given.interface or "") if given.interface != "" else ""
    count = sum(host.slots for host in hosts) or int(number)
    workers = Workers(count, tuple(hosts), (given.controllers or ["gloo"])[0], interface)
    return LaunchPlan(workers, int(given.max_restarts), given.print_only), train_flags


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
