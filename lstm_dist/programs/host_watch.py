"""The watch over one attempt of a job on several hosts: who still answers after a failure, and who could be added."""

import threading
import time
from functools import partial
from typing import Callable, List, Optional, Tuple

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import Answers, HostPool, workers_on
from lstm_dist.cluster.host_query import UNREACHABLE
from lstm_dist.cluster.hosts import Host
from lstm_dist.programs.launch_plan import HostChanges
from lstm_dist.programs.launcher_job import LauncherJob

_LOOK_EVERY = 0.2  # seconds between two looks at the job
_ASK_EVERY = 5.0  # seconds between two questions to the hosts of a job that starts


class HostWatch:
    """Two threads that ask the hosts of a running attempt and those that it lacks.

    One asks all hosts as soon as a worker has failed, and kills the launcher if one does not answer. The other looks
    for hosts while the job runs, and pauses it when it can continue on more workers. They are two because a host that
    is down, or a discovery program that hangs, keeps the second one waiting for seconds.

    Attributes:
        answers: of all wanted hosts, since a worker has failed; None if none has.
        better: the hosts for which the job was paused; None if it was not.
    """

    def __init__(
        self, job: LauncherJob, workers: Workers, pool: HostPool, changes: HostChanges, least: int, grow_at: float
    ) -> None:
        """Begin to watch.

        Args:
            job: that has just been started.
            workers: of the job.
            pool: the wanted hosts.
            changes: how to deal with hosts that are lost and return.
            least: the least number of workers.
            grow_at: when the job may be paused to continue on more workers, in `time.monotonic` seconds.
        """
        self._job, self._workers, self._pool, self._changes = job, workers, pool, changes
        self._least, self._grow_at = least, grow_at
        self.answers: Optional[Answers] = None
        self.better: Optional[Tuple[Host, ...]] = None
        self._over, self._acting = threading.Event(), threading.Lock()
        self._silent: List[str] = []  # hosts that did not answer the last question
        self._failure = threading.Thread(target=self._await_failure, daemon=True)
        for thread in (self._failure, threading.Thread(target=self._look_for_hosts, daemon=True)):
            thread.start()

    def close(self) -> None:
        """End the watch; a question after a failure is answered first, others are not waited for."""
        with self._acting:
            self._over.set()
        self._failure.join()

    def _await_failure(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            if self._job.has_failed:
                self._over.set()
                self.answers = self._pool.ask(self._pool.wanted)
                if any(host.name in self.answers.problems for host in self._workers.hosts):
                    self._job.abandon("a host does not answer")
                return

    def _look_for_hosts(self) -> None:
        if self._job.attempt.number > 1:  # while the launcher starts, end what earlier attempts have left running
            self._pool.ask(self._workers.hosts, self._job.attempt)
        looked = asked = time.monotonic()
        while not self._over.wait(_LOOK_EVERY):
            if time.monotonic() > asked + (self._changes.look_every if self._job.has_begun else _ASK_EVERY):
                self._ask_used()
                asked = time.monotonic()
            if self._job.is_paused:  # it may still fail before it stops
                continue
            if time.monotonic() > looked + self._changes.look_every and self._job.has_begun:
                self._seek_better()
                looked = time.monotonic()
            if self.better and not self._job.is_stopping:
                self._act(self._job.pause)

    def _act(self, action: Callable[[], None]) -> None:
        """Do something about the job, unless the watch is over, which waits for the end of an action."""
        with self._acting:
            if not self._over.is_set():
                action()

    def _ask_used(self) -> None:
        """Kill the launcher if a host twice cannot be reached, and no worker can find out.

        That is so until all workers are connected, and for a single worker. A host that is slow is still waited for.
        """
        before, self._silent = self._silent, []
        if not self._job.has_begun or self._workers.number == 1:
            problems = self._pool.ask(self._workers.hosts).problems
            gone = {name: problem for name, problem in problems.items() if problem.startswith(UNREACHABLE)}
            self._silent = [f"host {name}: {problem}" for name, problem in gone.items()]
        for line in self._silent:
            if line in before:
                self._act(partial(self._job.abandon, line))

    def _seek_better(self) -> None:
        """Find out whether more workers are possible, or whether hosts in use are no longer listed."""
        used, pool = self._workers.hosts, self._pool
        pool.update(self._changes.discovery)
        is_dropped = bool({host.name for host in used} - {host.name for host in pool.wanted})
        can_grow = pool.missing(used) or pool.workers > self._workers.number
        if time.monotonic() < self._grow_at or not (is_dropped or can_grow):
            return
        hosts = pool.choose([*used, *pool.ask(pool.missing(used)).usable], self._least)
        if workers_on(hosts) > self._workers.number or (is_dropped and workers_on(hosts) >= self._least):
            self.better = hosts
