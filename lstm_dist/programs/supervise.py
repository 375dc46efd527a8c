"""Run a training job under horovodrun, pass on what it says, and start it again where that helps.

launch/local.sh and launch/cluster.sh are how to start it; this is the part of them which a shell would do badly.
"""

import argparse
import contextlib
import math
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional, Sequence

from lstm_dist.cluster.horovodrun import Workers, environment
from lstm_dist.cluster.hosts import choose_hosts, parse_interface, require_fit, unreachable
from lstm_dist.cluster.launch_env import ATTEMPT, die_with_parent
from lstm_dist.errors import ExitStatus, UserError, print_error, printable
from lstm_dist.files import is_claimed
from lstm_dist.run.checkpoint_dir import CheckpointDir, step_of
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.run.status import describe_failure, first_failure, read_status
from lstm_dist.run.stop_request import FILE, LAUNCHER_ENDED, handled_signals
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig

ROOT = Path(__file__).resolve().parents[2]
TRAIN = ROOT / "jobs" / "train.py"
OWN_PREFIX = re.compile(r"^\[(1,)?0\]<std(out|err)>:")
OWN_NEWS = re.compile(
    r"Process \d+ exit with status code|Terminating remaining workers after failure|"
    r"\[\S+\] plm:rsh: Warning: setpgid"  # of a race that mpirun wins anyhow
)
EXIT_CODE = re.compile(r"Exit code: (-?\d+)")
LEAVING = 30.0  # seconds that workers have to leave after their launcher
SILENT = 20.0  # seconds without a line after which the launcher is said to be starting; workers report after 10
ENDING = 15.0  # seconds that a launcher has to end a job of which a rank has failed
REPEATED = 2.0  # seconds within which a second request is the first one's echo: shells repeat a SIGHUP


class Plan(NamedTuple):
    """Who is to be started, and how often.

    Attributes:
        workers: and where they are.
        max_restarts: without progress.
        only_print: whether the command is to be shown and not run.
    """

    workers: Workers
    max_restarts: int
    only_print: bool

    def command(self, flags: Sequence[str]) -> List[str]:
        """The whole command line of a job with these flags of jobs/train.py."""
        return self.workers.command([str(TRAIN), *flags])

    def again(self, run_dir: Path) -> str:
        """What a person types to go on."""
        number, hosts, controller, interface = self.workers
        where = ["launch/local.sh", "-n", str(number)]
        if hosts:
            where = ["launch/cluster.sh", "-H", ",".join(map(str, hosts))]
        through = ["--interface", interface] if interface else []
        return shlex.join([*where, *through, f"--{controller}", "--resume", "--run-dir", str(run_dir)])


class Outcome(NamedTuple):
    """How one attempt ended.

    Attributes:
        status: an ExitStatus, or the launcher's own.
        curable: whether starting again may help.
        reason: one line, empty where nothing is left to say.
        step: of the last checkpoint, -1 where there is none.
    """

    status: int
    curable: bool
    reason: str
    step: int


class Job:
    """The workers of one attempt, under horovodrun, which have `patience` seconds to stop when asked."""

    def __init__(self, command: Sequence[str], env: Dict[str, str], run_dir: Path, patience: float) -> None:
        self.run_dir = run_dir
        self._patience = patience
        self.name = uuid.uuid4().hex
        self.asked = 0.0
        self.was_killed = False
        self.held: List[str] = []
        self._silent_until = time.monotonic() + SILENT
        env = {**env, ATTEMPT: self.name}
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="backslashreplace", start_new_session=True, preexec_fn=die_with_parent,
        )  # fmt: skip
        self._readers = [
            threading.Thread(target=self._pass_on, args=(self._process.stdout, sys.stdout), daemon=True),
            threading.Thread(target=self._pass_on, args=(self._process.stderr, sys.stderr), daemon=True),
        ]
        for reader in self._readers:
            reader.start()

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Ask rank 0 for an orderly end; where it cannot be asked, or has been, have horovodrun end the workers."""
        if self.asked and time.monotonic() < self.asked + REPEATED:
            return
        status = self.status()
        if self.asked or status.get("state") != "running":
            self._process.terminate()
        elif status["host"] != socket.gethostname():
            with contextlib.suppress(OSError):
                (self.run_dir / FILE).touch()
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status["pid"], number)
        self.asked = self.asked or time.monotonic()

    def status(self) -> Any:
        """What its root has said of it; nothing where it never began."""
        status = read_status(self.run_dir)
        return status if status.get("attempt") == self.name else {}

    def wait(self) -> int:
        """To the end; returns horovodrun's status."""
        failed = math.inf
        while self._process.poll() is None:
            now = time.monotonic()
            if self.asked and now > self.asked + self._patience:
                self._process.terminate()
            if now > self._silent_until:
                self._silent_until = math.inf
                sys.stdout.write(f"still starting after {SILENT:.0f} s: no worker has reported yet\n")
                sys.stdout.flush()
            if failed == math.inf and self.status() and first_failure(self.run_dir):
                failed = now
            if now > failed + ENDING:  # mpirun waits for ever for a host that does not answer any more
                self.was_killed = True
                os.killpg(self._process.pid, signal.SIGKILL)
            time.sleep(0.1)
        for reader in self._readers:
            reader.join(timeout=5)  # a worker's orphan may hold the pipe for ever
        over, alone = time.monotonic() + LEAVING, self._process.returncode >= 0 and not self.status()
        while not alone and is_claimed(self.run_dir) and time.monotonic() < over:
            time.sleep(0.1)  # the workers of a launcher that was killed take some seconds to end
        return self._process.returncode

    def _pass_on(self, source: IO[str], to: IO[str]) -> None:
        """Lines as they come: rank 0 speaks for the job, so its lines need not say whose they are.

        horovodrun ends a job that failed or was stopped with words and a traceback of its own, under which the
        workers' message would be lost to view: they are held back.
        """
        holding, readable = False, True
        for line in source:
            self._silent_until = math.inf
            holding = holding or line.startswith("Traceback (most recent call last):")
            if holding or OWN_NEWS.match(line):
                self.held.append(line)
            elif readable:
                try:
                    to.write(OWN_PREFIX.sub("", line))
                    to.flush()
                except (BrokenPipeError, OSError):
                    readable = False
                    if not self.asked:
                        self.stop()


def judge(job: Job, returncode: int) -> Outcome:
    """What became of an attempt, from the files that it left."""
    step = last_step(job.run_dir)
    if returncode == 0:
        return Outcome(0, False, "", step)
    status = job.status()
    if not status:
        return never_began(job, returncode, step)
    if status["state"] == "stopped":
        reason = str(status.get("reason"))
        by_accident = reason.startswith("SIG") or reason == LAUNCHER_ENDED
        return Outcome(int(ExitStatus.STOPPED), by_accident, f"stopped by {reason}", step)
    # Where horovodrun itself was killed, that was why, whatever became of its workers.
    killed = returncode < 0 and not job.was_killed
    lost = f"horovodrun ({signal.Signals(-returncode).name})" if killed else ""
    cause, reason = first_failure(job.run_dir), describe_failure(job.run_dir, lost)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return Outcome(cause.status, cause.kind == "Stalled", reason, step)
    return Outcome(int(ExitStatus.PEER_LOST), True, reason, step)


def never_began(job: Job, returncode: int, step: int) -> Outcome:
    """What became of an attempt that did not get to its training: the workers have said why, or could not."""
    codes = [int(code) for code in EXIT_CODE.findall("".join(job.held))]
    if job.asked:
        return Outcome(int(ExitStatus.STOPPED), False, "stopped before the first step", step)
    if not codes:
        sys.stderr.write("".join(job.held))
    status = codes[0] if codes else abs(returncode)
    if returncode < 0 or not 0 <= status <= 128 or status == ExitStatus.PEER_LOST:
        return Outcome(int(ExitStatus.PEER_LOST), True, "a worker was lost while the job was starting", step)
    if status == 1 and step >= 0:  # no worker's, and it has started this job before
        return Outcome(status, True, "horovodrun could not start the workers", step)
    return Outcome(status, False, "", step)


def last_step(run_dir: Path) -> int:
    """The step of the newest checkpoint; -1 where there is none."""
    return max(map(step_of, CheckpointDir(run_dir / "checkpoints").paths()), default=-1)


def parse(argv: Optional[Sequence[str]]) -> "tuple[Plan, List[str]]":
    """The launcher's own flags, and those of jobs/train.py."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # launch/local.sh --help is the help
    parser.add_argument("-n", nargs="?", const="")
    parser.add_argument("-H", dest="hosts", nargs="?", const="")
    parser.add_argument("--hostfile", nargs="?", const="")
    parser.add_argument("--interface", default="", nargs="?")
    parser.add_argument("--gloo", dest="controller", action="store_const", const="gloo", default="gloo")
    parser.add_argument("--mpi", dest="controller", action="store_const", const="mpi")
    parser.add_argument("--max-restarts", default="0", nargs="?")
    parser.add_argument("--print", dest="only_print", action="store_true")
    given, rest = parser.parse_known_args(argv)
    if given.n is not None and (given.hosts is not None or given.hostfile is not None):
        raise UserError("-n: the hosts say how many workers they take, leave it out")
    number = "2" if given.n is None else given.n
    if not re.fullmatch(r"[1-9][0-9]{0,3}", number):
        raise UserError(f"-n '{number}': the number of workers is a whole number from 1 on")
    if not re.fullmatch(r"[0-9]{1,6}", given.max_restarts or ""):
        raise UserError(f"--max-restarts '{given.max_restarts or ''}': is a whole number from 0 on")
    hosts = choose_hosts(given.hosts, given.hostfile)
    interface = parse_interface(given.interface or "") if given.interface != "" else ""
    count = sum(host.slots for host in hosts) or int(number)
    workers = Workers(count, tuple(hosts), given.controller, interface)
    return Plan(workers, int(given.max_restarts), given.only_print), rest


class Requests:
    """The signals that ask for an end: kept, whatever attempt is under way, and passed on to it."""

    def __init__(self) -> None:
        self.made = 0  # the number of the first
        self.job: Optional[Job] = None
        for number in handled_signals():
            signal.signal(number, self._notice)

    def watch(self, job: Job) -> None:
        """Pass on to this one from now on."""
        self.job = job
        if self.made:
            job.stop(self.made)

    def _notice(self, number: int, _: object) -> None:
        self.made = self.made or number
        if self.job is not None:
            self.job.stop(self.made)


def with_hosts(outcome: Outcome, plan: Plan) -> Outcome:
    """The outcome of a job that lost workers, with those hosts named as the cause that have gone with them."""
    hosts = plan.workers.hosts if outcome.status == ExitStatus.PEER_LOST else ()
    gone = unreachable(hosts, TRAIN) if hosts else []
    if not gone:
        return outcome
    return outcome._replace(curable=False, reason=f"{'; '.join(gone)}; {outcome.reason}")


def run(plan: Plan, settings: RunConfig, run_dir: Path, first: Sequence[str]) -> Outcome:
    """Attempts, until one ends well or no other could."""
    began, requests = time.monotonic(), Requests()
    restarts, best, flags = 0, -1, list(first)
    env = environment(*(host.name for host in plan.workers.hosts[:1]))
    while True:
        job = Job(plan.command(flags), env, run_dir, settings.stall_timeout)
        requests.watch(job)
        outcome = with_hosts(judge(job, job.wait()), plan)
        restarts = 0 if outcome.step > best else restarts
        best = max(best, outcome.step)
        left = began + settings.time_limit_seconds - time.monotonic()
        if not outcome.curable or requests.made or job.asked or restarts >= plan.max_restarts or left < 1:
            return outcome
        restarts += 1
        print_error(f"{outcome.reason}; starting again from step {max(0, best)} ({restarts} of {plan.max_restarts})")
        limit = [f"--time-limit={int(left)}s"] if math.isfinite(left) else []
        flags = [*first, *limit, "--auto-resume"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """One job from its flags to its last line; returns its status."""
    plan, first = parse(argv)
    if plan.only_print:
        print(shlex.join(plan.command(first)))
        return 0
    settings: RunConfig = parse_config(first)
    if plan.workers.hosts:
        require_fit(plan.workers.hosts, TRAIN, plan.workers.interface)
    run_dir = choose_run_dir(settings.run_dir)
    if settings.run_dir is None:
        first = [*first, f"--run-dir={run_dir}"]
    outcome = run(plan, settings, run_dir, first)
    if settings.run_dir is None and outcome.step < 0:
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # of a job that never began there is nothing to keep
    if outcome.reason:
        kept = f"; go on from step {outcome.step} with: {plan.again(run_dir)}" if outcome.step >= 0 else ""
        say = "" if outcome.status == ExitStatus.STOPPED else "error: "
        sys.stderr.write(f"{say}{printable(outcome.reason)}{kept}\n")
    return outcome.status
