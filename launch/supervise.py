#!/usr/bin/env python3
"""Run a training job on this machine under horovodrun, pass on what it says, and start it again where that helps.

launch/local.sh is how to start it; this is the part of that which a shell would do badly.
"""

import argparse
import contextlib
import ctypes
import json
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
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional, Sequence

from lstm_dist.config import RunConfig, parse_config
from lstm_dist.errors import ExitStatus, UserError, one_line_errors, print_error, printable
from lstm_dist.rundir import is_claimed, new_run_dir
from lstm_dist.status import ATTEMPT, first_cause, read_status
from lstm_dist.stop import LAUNCHER_ENDED, heeded
from lstm_dist.store import Store, step_of

ROOT = Path(__file__).resolve().parents[1]
TRAIN = ROOT / "jobs" / "train.py"
OWN_PREFIX = re.compile(r"^\[(1,)?0\]<std(out|err)>:")
OWN_NEWS = re.compile(r"Process \d+ exit with status code|Terminating remaining workers after failure")
EXIT_CODE = re.compile(r"Exit code: (\d+)")
LEAVING = 30.0  # seconds that workers have to leave after their launcher
REPEATED = 2.0  # seconds within which a second request is the first one's echo: shells repeat a SIGHUP
# What workers need of this environment. horovodrun writes every value on its workers' command lines, where all users of
# the machine can read it, so nothing else goes along.
PASSED = re.compile(
    r"PATH|HOME|USER|LOGNAME|SHELL|LANG|LANGUAGE|LC_.*|TZ|TERM|TMPDIR|LD_LIBRARY_PATH|PYTHON.*|VIRTUAL_ENV|OMP_.*|KMP_.*|"
    r"GOMP_.*|MKL_.*|OPENBLAS_.*|MXNET_.*|HOROVOD_.*|NCCL_.*|CUDA_.*|NVIDIA_.*|OMPI_.*|OPAL_PREFIX|PMIX_.*|UCX_.*|"
    r"LSTM_DIST_.*"
)
SECRET = re.compile(r"TOKEN|SECRET|PASS|CREDENTIAL|(^|_)KEY", re.IGNORECASE)


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
        self.held: List[str] = []
        env = {**env, ATTEMPT: self.name}
        self._process = subprocess.Popen(
            command, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            encoding="utf-8", errors="backslashreplace", start_new_session=True, preexec_fn=_die_with_parent,
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
        running = status.get("state") == "running" and status.get("host") == socket.gethostname()
        if self.asked or not running:
            self._process.terminate()
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
        while self._process.poll() is None:
            if self.asked and time.monotonic() > self.asked + self._patience:
                self._process.terminate()
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


def _die_with_parent() -> None:
    """In the child, before it becomes horovodrun: when this program is killed, it is told to end, with its workers."""
    set_death_signal = 1  # PR_SET_PDEATHSIG
    ctypes.CDLL(None).prctl(set_death_signal, signal.SIGTERM)


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
    cause = first_cause(job.run_dir)
    if cause is not None and cause.status != ExitStatus.PEER_LOST:
        return Outcome(cause.status, cause.kind == "Stalled", cause.describe(), step)
    lost = ", ".join(f"rank {rank} on {host}" for rank, host in silent_ranks(job.run_dir)) or "a rank"
    if returncode < 0:  # and whatever became of its workers, that was why
        lost = f"horovodrun ({signal.Signals(-returncode).name})"
    reason = f"{lost} ended without a word after step {status['step']} or later"
    return Outcome(int(ExitStatus.PEER_LOST), True, reason, step)


def never_began(job: Job, returncode: int, step: int) -> Outcome:
    """What became of an attempt that did not get to its training: the workers have said why, or could not."""
    codes = [int(code) for code in EXIT_CODE.findall("".join(job.held))]
    if job.asked:
        return Outcome(int(ExitStatus.STOPPED), False, "stopped before the first step", step)
    if not codes:
        sys.stderr.write("".join(job.held))
    status = codes[0] if codes else abs(returncode)
    if returncode < 0 or status > 128 or status == ExitStatus.PEER_LOST:
        return Outcome(int(ExitStatus.PEER_LOST), True, "a worker was lost while the job was starting", step)
    return Outcome(status, False, "", step)


def silent_ranks(run_dir: Path) -> "Iterator[tuple[int, str]]":
    """The ranks that left no error, and their hosts."""
    try:
        ranks = json.loads((run_dir / "run.json").read_bytes())["ranks"]
    except (OSError, ValueError, KeyError):
        return
    for rank, facts in enumerate(ranks):
        if not (run_dir / "errors" / f"rank{rank}.json").exists():
            yield rank, facts["host"]


def last_step(run_dir: Path) -> int:
    """The step of the newest checkpoint; -1 where there is none."""
    return max(map(step_of, Store(run_dir / "checkpoints").paths()), default=-1)


def environment() -> Dict[str, str]:
    """What the workers get of this environment, and what they need beside."""
    env = {k: v for k, v in os.environ.items() if PASSED.fullmatch(k) and not SECRET.search(k)}
    env["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{env.get('PATH', os.defpath)}"
    env["PYTHONUTF8"] = "1"  # horovodrun stops reading the workers at the first byte that is not UTF-8
    if os.geteuid() == 0:
        env.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")
    # horovodrun reads the workers' output through pipes; rank 0 shows its lines and its progress bar on the terminal
    # behind them, unless they are to go to a file.
    env.pop("LSTM_DIST_TERMINAL", None)
    if sys.stdout.isatty() and sys.stderr.isatty():
        env["LSTM_DIST_TERMINAL"] = os.ttyname(sys.stderr.fileno())
    return env


def parse(argv: Optional[Sequence[str]]) -> "tuple[argparse.Namespace, List[str]]":
    """The launcher's own flags, and those of jobs/train.py."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)  # launch/local.sh --help is the help
    parser.add_argument("-n", default="2", nargs="?")
    parser.add_argument("--gloo", dest="controller", action="store_const", const="gloo", default="gloo")
    parser.add_argument("--mpi", dest="controller", action="store_const", const="mpi")
    parser.add_argument("--max-restarts", default="0", nargs="?")
    given, rest = parser.parse_known_args(argv)
    if not re.fullmatch(r"[1-9][0-9]{0,3}", given.n or ""):
        raise UserError(f"-n '{given.n or ''}': the number of workers is a whole number from 1 on")
    if not re.fullmatch(r"[0-9]{1,6}", given.max_restarts or ""):
        raise UserError(f"--max-restarts '{given.max_restarts or ''}': is a whole number from 0 on")
    return given, rest


class Requests:
    """The signals that ask for an end: kept, whatever attempt is under way, and passed on to it."""

    def __init__(self) -> None:
        self.made = 0  # the number of the first
        self.job: Optional[Job] = None
        for number in heeded():
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


def continued(flags: Sequence[str], best: int, left: float) -> List[str]:
    """The flags of the next attempt: from the last checkpoint, or from the beginning where there is none.

    Args:
        flags: of the first one.
        best: the step of the last checkpoint, -1 for none.
        left: seconds of --time-limit.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--init")
    parser.add_argument("--overwrite", action="store_true")
    limit = [f"--time-limit={int(left)}s"] if math.isfinite(left) else []
    if best < 0:
        return [*flags, *limit, *([] if {"--overwrite", "--resume"} & set(flags) else ["--overwrite"])]
    rest = [flag for flag in parser.parse_known_args(flags)[1] if flag != "--resume"]
    return [*rest, *limit, "--resume"]


def main(argv: Optional[Sequence[str]] = None) -> int:
    """Attempts, until one ends well or no other could."""
    began = time.monotonic()
    given, first = parse(argv)
    settings: RunConfig = parse_config(first)
    run_dir = settings.run_dir or new_run_dir()
    if settings.run_dir is None:
        first = [*first, f"--run-dir={run_dir}"]
    # Without --disable-cache, horovodrun believes for an hour what it found out about a machine.
    launcher = ["horovodrun", "--disable-cache", f"--{given.controller}", "-np", given.n, sys.executable, str(TRAIN)]
    requests, restarts, best, flags = Requests(), 0, -1, first
    while True:
        job = Job([*launcher, *flags], environment(), run_dir, settings.stall_timeout)
        requests.watch(job)
        outcome = judge(job, job.wait())
        restarts = 0 if outcome.step > best else restarts
        best = max(best, outcome.step)
        left = began + settings.time_limit_seconds - time.monotonic()
        if not outcome.curable or requests.made or job.asked or restarts >= int(given.max_restarts) or left < 1:
            break
        restarts += 1
        print_error(f"{outcome.reason}; starting again from step {max(0, best)} ({restarts} of {given.max_restarts})")
        flags = continued(first, best, left)
    if settings.run_dir is None and best < 0:
        with contextlib.suppress(OSError):
            run_dir.rmdir()  # of a job that never began there is nothing to keep
    if outcome.reason:
        again = f"launch/local.sh -n {given.n} --{given.controller} --resume --run-dir {shlex.quote(str(run_dir))}"
        kept = f"; go on from step {outcome.step} with: {again}" if outcome.step >= 0 else ""
        say = "" if outcome.status == ExitStatus.STOPPED else "error: "
        sys.stderr.write(f"{say}{printable(outcome.reason)}{kept}\n")
    return outcome.status


if __name__ == "__main__":
    with one_line_errors():
        sys.exit(main())
