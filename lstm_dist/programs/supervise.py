"""Run a training job under horovodrun, forward its output, and restart it after failures that a restart may fix.

launch/local.sh and launch/cluster.sh start this program, with their own flags and those of jobs/train.py.
"""

import contextlib
import math
import shlex
import sys
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple, Optional, Sequence

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.cuda_libs import require_driver
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import HostPool, workers_on
from lstm_dist.cluster.host_query import CONTACT, HostQuery, require_usable, require_usable_here
from lstm_dist.cluster.launch_env import began
from lstm_dist.cluster.process_tree import adopt_orphans
from lstm_dist.errors import ExitStatus, UserError, print_warning, printable
from lstm_dist.programs.crew import Crew, HostCrew
from lstm_dist.programs.launch_plan import TRAIN, LaunchPlan, parse
from lstm_dist.programs.launcher_job import LauncherJob
from lstm_dist.programs.stop_signals import StopSignals
from lstm_dist.programs.verdict import DIVERGED, NO_CHECKPOINT, Verdict, classify, last_step
from lstm_dist.run import timeline
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

_NO_RUN = Path("runs", "none")  # stands for the run directory of a dry run, in which nothing is written

ASK_LIMIT = 3.0  # seconds that a host has to answer while a job runs or is to continue
_SLOWER = 3.0  # it has more, as many times what the slowest host took before the start, but at most CONTACT


class Supervision:
    """A job from its first attempt to its last one."""

    def __init__(self, crew: Crew, max_restarts: int, settings: RunConfig, run_dir: Path) -> None:
        """Make it.

        Args:
            crew: the workers.
            max_restarts: the maximum number of restarts in a row without a new checkpoint.
            settings: of the job.
            run_dir: of the job.
        """
        self._crew, self._max_restarts, self._settings, self._run_dir = crew, max_restarts, settings, run_dir
        self._signals = StopSignals()
        self._attempt = self._first = Attempt.first()
        self._ends = time.monotonic() + settings.time_limit_seconds
        self._restarts, self._best_step = 0, NO_CHECKPOINT

    def run(self, train_flags: Sequence[str]) -> Verdict:
        """Start the job, and again until it ends well, should not be restarted, or has no restart or time left.

        Args:
            train_flags: flags of jobs/train.py for the first attempt.

        Returns:
            The verdict on the last attempt.
        """
        flags = list(train_flags)
        while True:
            job = self._start(flags)
            verdict = self._crew.judge(job, classify(job, job.wait()))
            self._record(verdict)
            if verdict.step > self._best_step:
                self._restarts, self._best_step = 0, verdict.step
            self._attempt = self._attempt._replace(number=self._attempt.number + 1)
            if self._may_continue(job) and job.is_paused and self._crew.continue_better(verdict):
                self._tell("")
            elif self._may_continue(job) and verdict.may_restart and self._restarts < self._max_restarts:
                self._restarts += 1
                if not self._crew.regroup(self._attempt, partial(self._may_continue, job)):
                    self._crew.end(self._attempt, verdict)
                    return self._crew.give_up(verdict) if self._may_continue(job) else verdict
                self._tell(verdict.reason)
            else:
                self._crew.end(self._attempt, verdict)
                return verdict
            seconds_left = self._ends - time.monotonic()
            time_limit = [f"--time-limit={int(seconds_left)}s"] if math.isfinite(seconds_left) else []
            flags = [*train_flags, *time_limit, "--auto-resume"]

    def _start(self, flags: Sequence[str]) -> LauncherJob:
        workers = self._crew.workers
        since = began() if self._attempt == self._first else time.time()  # the first one includes the checks before it
        job = LauncherJob(
            workers.command([str(TRAIN), *flags]), workers.environment(), self._run_dir, self._attempt, since,
            self._settings.stall_timeout, not workers.hosts,
        )  # fmt: skip
        self._signals.forward_to(job)
        self._crew.watch(job, last_step(self._run_dir))
        return job

    def _may_continue(self, job: LauncherJob) -> bool:
        """Return whether nobody has asked the job to stop, and there is time left."""
        return not self._signals.is_stopping and not job.is_stopping and self._ends - time.monotonic() >= 1

    def _record(self, verdict: Verdict) -> None:
        """Record why an attempt has failed; its root knows at most that another worker was lost."""
        if verdict.reason and verdict.status != ExitStatus.STOPPED and verdict.step != NO_CHECKPOINT:
            timeline.append(self._run_dir, timeline.FAILURE, line=verdict.reason)

    def _tell(self, reason: str) -> None:
        restart = f"(restart {self._restarts} of {self._max_restarts})"
        for line in self._crew.describe(reason, max(0, self._best_step), restart):
            print_warning(line)


class Gathered(NamedTuple):
    """What a job starts with.

    Attributes:
        workers: all of them, or those on hosts that can be used.
        ask_limit: seconds that a host has to answer from then on.
    """

    workers: Workers
    ask_limit: float = ASK_LIMIT


def gather(plan: LaunchPlan) -> Gathered:
    """Check the hosts of a job, and return the workers to start with.

    Raises:
        UserError: if a host that is needed cannot be used, naming the host, the problem and what to do.
    """
    workers, query, began = plan.workers, HostQuery(TRAIN, plan.workers.interface), time.monotonic()
    if not workers.hosts:
        return Gathered(workers)
    if not plan.changes.may_shrink:
        require_usable(workers.hosts, query)
        return Gathered(workers, _ask_limit(time.monotonic() - began))
    require_usable_here(query)
    problems = query._replace(contact=CONTACT).problems(workers.hosts)
    usable = tuple(host for host in workers.hosts if not problems[host.name])
    lines = [f"host {name}: {reasons[0]}" for name, reasons in problems.items() if reasons]
    if workers_on(usable) < (plan.changes.min_workers or 1):
        raise UserError(lines[0], ExitStatus.BAD_CONFIG)
    for line in lines:
        print_warning(f"{line}; starting on {workers_on(usable)} of {workers.number} workers")
    seconds = 0.0 if lines else time.monotonic() - began  # a host that is down takes long
    started = workers._replace(number=workers_on(usable), hosts=usable)
    return Gathered(started, _ask_limit(seconds))


def _ask_limit(seconds: float) -> float:
    """Return the seconds that a host has to answer from then on, if all have done so within these seconds."""
    return min(CONTACT, max(ASK_LIMIT, _SLOWER * seconds))


def make_crew(plan: LaunchPlan, gathered: Gathered, run_dir: Path) -> Crew:
    """Return the workers of a job, which begins with those that were gathered."""
    workers = gathered.workers
    if not workers.hosts:
        return Crew(workers)
    ask = HostQuery(TRAIN, workers.interface, gathered.ask_limit, CONTACT).problems
    return HostCrew(workers, HostPool(plan.workers.hosts, ask), plan.changes, run_dir)


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Run a job, report how it ended and how to resume it, and return its status."""
    plan, train_flags = parse(argv)
    if plan.print_only:
        print(f'PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {shlex.join(plan.command(train_flags))}')
        return 0
    settings: RunConfig = parse_config(train_flags)
    plan.require_fixed_batch(settings)
    require_driver()  # horovodrun loads MXNet, too, and says of any failure that Horovod has no Gloo or MPI
    gathered = gather(plan)
    is_new = settings.run_dir is None and not settings.dry_run
    run_dir = choose_run_dir(settings.run_dir) if is_new else settings.run_dir or _NO_RUN
    if is_new:
        train_flags = [*train_flags, f"--run-dir={run_dir}"]
    adopt_orphans()
    restarts = 0 if settings.dry_run else plan.max_restarts
    verdict = Supervision(make_crew(plan, gathered, run_dir), restarts, settings, run_dir).run(train_flags)
    if is_new and verdict.step == NO_CHECKPOINT:
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # succeeds if it is empty, because the job never began
    if verdict.reason:
        resume = f"; resume from step {verdict.step} with: {plan.resume_command(run_dir)}"
        has_progress = verdict.step != NO_CHECKPOINT and not settings.dry_run
        can_resume = has_progress and verdict.status not in DIVERGED
        prefix = "" if verdict.status == ExitStatus.STOPPED else "error: "
        sys.stderr.write(f"{prefix}{printable(verdict.reason)}{resume if can_resume else ''}\n")
    return verdict.status
