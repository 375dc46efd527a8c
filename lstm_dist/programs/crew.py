"""The workers of a job from one attempt to the next: always the same on this machine, those that answer on hosts."""

import time
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import LEFT_OUT, STRIKES, Answers, HostPool, workers_on
from lstm_dist.cluster.hosts import Host
from lstm_dist.errors import ExitStatus, print_warning
from lstm_dist.programs.host_watch import HostWatch
from lstm_dist.programs.launch_plan import HostChanges
from lstm_dist.programs.launcher_job import LauncherJob
from lstm_dist.programs.verdict import DIVERGED, NO_CHECKPOINT, Verdict
from lstm_dist.run import timeline
from lstm_dist.run.status import failures, silent_ranks
from lstm_dist.run.stop_request import PLANNED

_ASK_EVERY = 3.0  # seconds between two questions to hosts while there are too few workers
_SAY_EVERY = 60.0  # seconds between two lines that say that the job waits
_LOST = (1, ExitStatus.PEER_LOST)  # statuses of attempts that may have failed because of a host; 1 is horovodrun's
_MINUTES = f"{LEFT_OUT / 60:.0f} min"


class Crew:
    """The workers of a job on this machine, the same in every attempt.

    Attributes:
        workers: of the next attempt.
    """

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def watch(self, job: LauncherJob, checkpoint: int) -> None:
        """Begin to watch an attempt; `checkpoint` is the step of the last checkpoint, NO_CHECKPOINT without one."""

    def judge(self, job: LauncherJob, verdict: Verdict) -> Verdict:  # noqa: ARG002 - as HostCrew
        """Stop watching an attempt, which has ended, and return the verdict with what is known of its hosts."""
        return verdict

    def continue_better(self, verdict: Verdict) -> bool:  # noqa: ARG002 - as HostCrew
        """Return whether the job was paused to continue on other workers, and take these."""
        return False

    def regroup(self, next_attempt: Attempt, may_wait: Callable[[], bool]) -> bool:  # noqa: ARG002 - as HostCrew
        """Choose the workers of the next attempt after a failure, and return whether there are enough.

        Args:
            next_attempt: what earlier ones have left running on a host is ended.
            may_wait: whether there is a reason to wait for workers.
        """
        return True

    def give_up(self, verdict: Verdict) -> Verdict:
        """Return the verdict on a job that has waited for workers in vain."""
        return verdict

    def end(self, next_attempt: Attempt, verdict: Verdict) -> None:
        """End what attempts before `next_attempt` have left running on other hosts, if the job has failed."""

    def describe(self, reason: str, step: int, restart: str) -> List[str]:
        """Return the lines that say how the job continues.

        Args:
            reason: why the last attempt ended, in one line; empty if it was paused.
            step: of the last checkpoint.
            restart: which restart it is, in parentheses.
        """
        return [f"error: {reason}; restarting from step {step} {restart}"]


class HostCrew(Crew):
    """The workers of a job on several hosts, which are lost and return."""

    def __init__(self, workers: Workers, pool: HostPool, changes: HostChanges, run_dir: Path) -> None:
        """Make it.

        Args:
            workers: of the first attempt.
            pool: the wanted hosts.
            changes: how to deal with hosts that are lost and return.
            run_dir: of the job.
        """
        super().__init__(workers)
        self._pool, self._changes, self._run_dir = pool, changes, run_dir
        self._least = changes.min_workers or workers.number
        self._changed = time.monotonic()  # when the job last began on other workers
        self._watch: Optional[HostWatch] = None
        self._answers: Optional[Answers] = None  # of all wanted hosts, since the last attempt has failed
        self._checkpoint = NO_CHECKPOINT  # step of the last checkpoint when the attempt began
        self._before: Sequence[Host] = workers.hosts  # of the last attempt
        self._known = {host.name for host in workers.hosts}  # hosts that have been in use
        self._lost: Dict[str, str] = {}  # why hosts were lost with the last attempt, by name
        self._last_step = 0  # that the workers of the last attempt have reported

    @property
    def _added(self) -> List[str]:
        """Return the names of the hosts that were not in use in the attempt before."""
        names = {host.name for host in self._before}
        return [host.name for host in self.workers.hosts if host.name not in names]

    def watch(self, job: LauncherJob, checkpoint: int) -> None:
        """Begin to watch an attempt, in a thread."""
        self._checkpoint = checkpoint
        grow_at = self._changed + self._changes.grow_every
        self._watch = HostWatch(job, self.workers, self._pool, self._changes, self._least, grow_at)

    def judge(self, job: LauncherJob, verdict: Verdict) -> Verdict:
        """Stop watching an attempt, and return the verdict with what is known of its hosts."""
        assert self._watch is not None  # noqa: S101 - every attempt is watched
        self._watch.close()
        job.remove_request()  # which the watch may have made after the end
        self._lost, self._answers = {}, None
        is_stopped = verdict.status in (ExitStatus.FINISHED, ExitStatus.STOPPED) and not verdict.may_restart
        if is_stopped or verdict.status in DIVERGED:
            return verdict
        answers = self._answers = self._watch.answers or self._pool.ask(self._pool.wanted)
        used = [host.name for host in self.workers.hosts]
        self._lost = {name: problem for name, problem in answers.problems.items() if name in used}
        steps = [cause.step for cause in failures(job.run_dir, str(job.attempt))]
        self._last_step = max([verdict.step, int(job.status().get("step", 0)), *steps])
        if verdict.step > self._checkpoint:
            self._pool.forgive(used)
        elif self._added and not self._lost and _is_of_added(job, verdict):
            return self._blame_added(verdict)
        for name in self._pool.strike(self._guilty(job)):
            print_warning(f"host {name} has failed {STRIKES} times in a row: leaving it out for {_MINUTES}")
        if not self._lost or verdict.status not in _LOST:
            return verdict
        problems = "; ".join(f"host {name}: {problem}" for name, problem in self._lost.items())
        reason = f"{problems}; lost after step {self._last_step:,}"  # others may have had no time for a report
        return verdict._replace(status=int(ExitStatus.PEER_LOST), may_restart=True, reason=reason)

    def _blame_added(self, verdict: Verdict) -> Verdict:
        """Leave out the hosts with which the last attempt could not train, and return a verdict that continues."""
        names = ", ".join(self._pool.leave_out(self._added))
        why = verdict.reason or f"the job has failed with status {verdict.status}"
        return verdict._replace(may_restart=True, reason=f"with {names}, {why}; leaving {names} out for {_MINUTES}")

    def _guilty(self, job: LauncherJob) -> List[str]:
        """Return the hosts that were lost, or those whose workers have ended without a report while others spoke."""
        ranks = [host.name for host in self.workers.hosts for _ in range(host.slots)]
        have_spoken = bool(failures(job.run_dir, str(job.attempt)))  # else run.json may be of the attempt before
        silent = [ranks[rank] for rank in silent_ranks(job.run_dir, str(job.attempt)) if rank < len(ranks)]
        return list(self._lost) or sorted(set(silent) if have_spoken and len(silent) < len(ranks) else ())

    def continue_better(self, verdict: Verdict) -> bool:
        """Take the hosts for which the job was paused; return False if it was not, or has ended otherwise."""
        better = self._watch.better if self._watch else None
        is_pause = verdict.status == ExitStatus.STOPPED and PLANNED in verdict.reason  # else a user has stopped the job
        if not better or not is_pause:
            return False
        self._take(better)
        return True

    def regroup(self, next_attempt: Attempt, may_wait: Callable[[], bool]) -> bool:
        """Choose the hosts of the next attempt among those that answer; wait if they have too few workers."""
        deadline, say_at = time.monotonic() + self._changes.wait, 0.0
        while True:
            answers = self._answers or self._pool.ask(self._pool.wanted, next_attempt, is_patient=True)
            self._answers = None
            hosts = self._pool.choose(answers.usable, self._least)
            if workers_on(hosts) >= self._least:
                self._take(hosts)
                return True
            is_over = time.monotonic() > deadline or not may_wait()
            if is_over or time.monotonic() >= say_at:
                facts = {"workers": workers_on(hosts), "needed": self._least, "is_over": is_over}
                timeline.append(self._run_dir, timeline.WAITING, **facts)
            if is_over:
                return False
            if time.monotonic() >= say_at:
                say_at = time.monotonic() + _SAY_EVERY
                self._say_waiting(hosts, deadline - time.monotonic())
            again = time.monotonic() + _ASK_EVERY
            while time.monotonic() < again and may_wait():
                time.sleep(0.1)
            self._pool.update(self._changes.discovery)

    def give_up(self, verdict: Verdict) -> Verdict:
        """Return the verdict on a job that has waited for workers in vain, with what to do about it."""
        advice = "give a longer --wait-for-workers, a lower --min-workers, or other hosts with --discover-hosts"
        reason = f"fewer than {self._least} workers within {_duration(self._changes.wait)}: {advice}"
        return verdict._replace(
            status=int(ExitStatus.PEER_LOST), reason=f"{verdict.reason}; {reason}" if verdict.reason else reason
        )

    def end(self, next_attempt: Attempt, verdict: Verdict) -> None:
        """End what earlier attempts have left running on the hosts that answer, if the job has failed."""
        if self._answers and verdict.status not in (ExitStatus.FINISHED, ExitStatus.STOPPED):
            self._pool.ask(self._answers.usable, next_attempt)

    def _say_waiting(self, hosts: Sequence[Host], seconds: float) -> None:
        absent = ", ".join(host.name for host in self._pool.wanted if host not in hosts)
        number = workers_on(hosts)
        print_warning(
            f"waiting up to {_duration(seconds)} for {absent}: {number} workers, at least {self._least} are needed"
        )

    def _take(self, hosts: Tuple[Host, ...]) -> None:
        if hosts != self.workers.hosts:
            self._changed = time.monotonic()
        self._before = self.workers.hosts
        self.workers = self.workers._replace(number=workers_on(hosts), hosts=hosts)

    def describe(self, reason: str, step: int, restart: str) -> List[str]:
        """Return the lines that say how the job continues: one for lost hosts, one for added ones."""
        number, wanted = self.workers.number, self._pool.workers
        to = f"continuing on {number if number == wanted else f'{number} of {wanted}'} workers from step {step:,}"
        used = {host.name for host in self.workers.hosts}
        gone = [host.name for host in self._before if host.name not in used]
        back, new = ([name for name in self._added if (name in self._known) == known] for known in (True, False))
        self._known |= used
        lines = []
        if gone and self._lost:
            hosts = f"host{'s' if len(gone) > 1 else ''} {', '.join(gone)}"
            why = "; ".join(dict.fromkeys(self._lost.values()))
            lines.append(f"{hosts} lost after step {self._last_step:,}: {to} ({why})")
        elif reason:
            lines += super().describe(reason, step, restart)
        elif gone:
            lines.append(f"{', '.join(gone)} no longer listed: {to}")
        if back:
            lines.append(f"{', '.join(back)} {'is' if len(back) == 1 else 'are'} back: {to}")
        if new:
            lines.append(f"{', '.join(new)} {'joins' if len(new) == 1 else 'join'}: {to}")
        lines = lines or [f"the hosts have other numbers of workers: {to}"]
        for line in lines:
            timeline.append(self._run_dir, "workers", workers=number, line=line)
        return lines


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} min" if seconds >= 90 else f"{seconds:.0f} s"


def _is_of_added(job: LauncherJob, verdict: Verdict) -> bool:
    """Return whether an attempt may have failed because of added hosts: it never began, or cannot be restarted."""
    return not job.has_begun or (not verdict.may_restart and verdict.status not in _LOST)
