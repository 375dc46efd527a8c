"""One attempt at a training job under horovodrun: its process, its output and its end."""

import contextlib
import math
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Sequence

from lstm_dist.attempt import ATTEMPT, Attempt
from lstm_dist.cluster.launch_env import BEGAN, die_with_parent
from lstm_dist.cluster.process_tree import end_descendants
from lstm_dist.files import is_claimed, replace_text
from lstm_dist.programs.start_watch import StartWatch
from lstm_dist.run.status import first_failure, read_status
from lstm_dist.run.stop_request import FILE, PLANNED

_RANK_0_PREFIX = re.compile(r"^\[(1,)?0\]<std(out|err)>:")
_LAUNCHER_LINE = re.compile(
    r"Process \d+ exit with status code|Terminating remaining workers after failure|"
    r"\[\S+\] plm:rsh: Warning: setpgid"  # a race that is harmless
)
# What a worker says when it is stopped before the first step; the supervisor says the same.
_STOPPED_START = re.compile(r"(\[(1,)?\d+\]<stderr>:)?stopped by SIG\w+ while starting")
_EXIT_CODE = re.compile(r"Exit code: (-?\d+)")
_CLEANUP = 30.0  # seconds that workers have to end after their launcher
_SILENT = 20.0  # seconds without a line after which the start is reported as slow; workers report after 10
_ABORT = 15.0  # seconds that a launcher has to end a job that has failed, or that is to end
_ABORT_HOSTS = 2.5  # the same for a failed job on several hosts, whose workers end by themselves or are ended over ssh
_END, _END_KILLED = 5.0, 0.5  # seconds for what a launcher has left behind to end, also if it was killed
_ECHO = 2.0  # seconds in which a second stop request counts as a repetition of the first: shells repeat a SIGHUP


class LauncherJob:
    """The launcher and the workers of one attempt.

    Attributes:
        run_dir: of the job.
        attempt: which attempt at the job it is.
        is_direct: whether the launcher is the only worker itself.
        was_killed: whether the launcher was killed because it did not end a failed job.
        start_failure: why it was killed before the workers began; empty if it was not.
        is_paused: whether it was asked to stop in order to continue on other workers.
    """

    def __init__(
        self,
        command: Sequence[str],
        env: Dict[str, str],
        run_dir: Path,
        attempt: Attempt,
        began: float,
        stop_timeout: float,
        is_local: bool,
    ) -> None:
        """Start the launcher.

        Args:
            command: of horovodrun, which ends with that of a worker; or that of the only worker.
            env: environment of the launcher and the workers.
            run_dir: of the job.
            attempt: which attempt at the job it is.
            began: when the attempt began, in seconds since 1970.
            stop_timeout: seconds that the workers have to stop after the first request, and to start.
            is_local: whether all workers are on this machine.
        """
        self.run_dir, self.attempt = run_dir, attempt
        self._stop_timeout, self._is_local = stop_timeout, is_local
        self.is_direct = command[0] == sys.executable
        self.was_killed, self.start_failure, self.is_paused = False, "", False
        self._kill_at = math.inf
        worker = command[command.index(sys.executable) :]
        self._start_watch = StartWatch(worker, stop_timeout, is_local, time.monotonic())
        self._stop_requested_at: Optional[float] = None
        self._has_made_file = False  # for this request
        self._stop_until = math.inf  # when a requested stop becomes an end of the workers
        self._held_output: List[str] = []
        self._silent_until = time.monotonic() + _SILENT
        mine = {ATTEMPT: str(attempt), BEGAN: str(began)}
        self._process = subprocess.Popen(
            command, env={**env, **mine}, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, encoding="utf-8", errors="backslashreplace", start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip
        self._forwarders = [
            threading.Thread(target=self._forward, args=(self._process.stdout, sys.stdout), daemon=True),
            threading.Thread(target=self._forward, args=(self._process.stderr, sys.stderr), daemon=True),
        ]
        for forwarder in self._forwarders:
            forwarder.start()

    @property
    def is_stopping(self) -> bool:
        """Return whether a stop was requested."""
        return self._stop_requested_at is not None

    @property
    def exit_codes(self) -> List[int]:
        """Return the exit statuses of workers that horovodrun has reported, or that of the only worker."""
        if self.is_direct:
            return [self._process.returncode] if self._process.returncode > 0 else []
        return [int(code) for code in _EXIT_CODE.findall(self.held_output)]

    @property
    def held_output(self) -> str:
        """Return the lines of the launcher that were not forwarded."""
        return "".join(self._held_output)

    def stop(self, number: int = signal.SIGTERM) -> None:
        """Request that the workers stop with a checkpoint.

        Rank 0 receives the signal `number`, or a stop file if it is on another host. If it is not running, or has been
        asked before, horovodrun ends the workers.
        """
        now = time.monotonic()
        if self._stop_requested_at is not None and now < self._stop_requested_at + _ECHO:
            return
        if self._process.poll() is not None:  # the process id of rank 0 may be another one's by now
            self._stop_requested_at = self._stop_requested_at or now
            return
        status = self.status()
        if self.is_stopping or status.get("state") != "running":
            self._terminate(now)
        elif status["host"] != socket.gethostname():
            with contextlib.suppress(OSError):
                (self.run_dir / FILE).touch(exist_ok=False)
                self._has_made_file = True
        else:
            with contextlib.suppress(ProcessLookupError):
                os.kill(status["pid"], number)
        self._stop_requested_at = self._stop_requested_at or time.monotonic()
        self._stop_until = min(self._stop_until, self._stop_requested_at + self._stop_timeout)

    def pause(self) -> None:
        """Request that the workers stop with a checkpoint, in order to continue on other workers.

        They do so between two steps, which may be after a long validation. A user's request stays as it is.
        """
        if not (self.run_dir / FILE).exists():
            self.is_paused = True
            with contextlib.suppress(OSError):
                replace_text(self.run_dir / FILE, PLANNED)

    def abandon(self, reason: str) -> None:
        """Kill the launcher, which would wait for a host that does not answer; `reason` is one line."""
        if not self.status():
            self.start_failure = reason
        self._kill_at = min(self._kill_at, time.monotonic())

    @property
    def has_begun(self) -> bool:
        """Return whether rank 0 has reported that it trains."""
        return bool(self.status())

    @property
    def has_failed(self) -> bool:
        """Return whether a worker has reported why it failed."""
        return self.has_begun and first_failure(self.run_dir, str(self.attempt)) is not None

    def status(self) -> Any:
        """Return the status that rank 0 of this attempt has written; an empty mapping before it began."""
        status = read_status(self.run_dir)
        return status if status.get("attempt") == str(self.attempt) else {}

    def wait(self) -> int:
        """Wait until the launcher and its workers have ended, and return the launcher's status."""
        while self._process.poll() is None:
            self._enforce_limits(time.monotonic())
            time.sleep(0.1)
        if self.was_killed:  # what it has started keeps the pipes open, and waits for hosts that do not answer
            end_descendants(_END_KILLED, attempt=self.attempt)
        for forwarder in self._forwarders:
            forwarder.join(timeout=5)  # an orphaned process of a worker may keep the pipe open
        self._wait_for_workers()
        end_descendants(_END, attempt=self.attempt)
        self.remove_request()
        return self._process.returncode

    def _enforce_limits(self, now: float) -> None:
        """End the launcher, or kill it, if it does not do so itself."""
        self._report_slow_start(now)
        if now > self._stop_until:
            self._terminate(now)
        if self._kill_at == math.inf and self.has_failed:
            self._kill_at = now + (
                _ABORT if self._is_local else _ABORT_HOSTS
            )  # mpirun waits forever for a host that does not answer
        if self._kill_at == math.inf and not self.is_direct and not self.status():  # the only worker has been started
            self.start_failure = self._start_watch.failure(now, self._silent_until == math.inf)
            self._kill_at = now if self.start_failure else math.inf
        if now > self._kill_at:
            self.was_killed = True
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def _terminate(self, now: float) -> None:
        """Ask the launcher to end, for the first time or again."""
        self._process.terminate()
        self._kill_at = min(self._kill_at, now + _ABORT)

    def remove_request(self) -> None:
        """Remove the file of a request that no worker has accepted, because it would stop the next start at once."""
        mine = {PLANNED: self.is_paused, "": self._has_made_file}
        with contextlib.suppress(OSError):
            if mine.get((self.run_dir / FILE).read_text(encoding="utf-8", errors="replace")):
                (self.run_dir / FILE).unlink()

    def _report_slow_start(self, now: float) -> None:
        if now > self._silent_until:
            self._silent_until = math.inf
            sys.stdout.write(f"still starting after {_SILENT:.0f} s: no worker has reported yet\n")
            sys.stdout.flush()

    def _wait_for_workers(self) -> None:
        """Wait until the run directory is unlocked: the workers of a killed launcher take some seconds to end."""
        if self._process.returncode >= 0 and not self.status():
            return  # this attempt never began, so that a lock is another job's
        if not self._is_local and self.has_failed:
            return  # the next attempt replaces the lock, which a host that does not answer may hold for long
        deadline = time.monotonic() + _CLEANUP
        while is_claimed(self.run_dir) and time.monotonic() < deadline:
            time.sleep(0.1)

    def _forward(self, source: IO[str], target: IO[str]) -> None:
        """Forward lines as they arrive, those of rank 0 without horovodrun's prefix.

        After a failure or a stop, horovodrun writes messages and a traceback of its own, among which the workers'
        message would be overlooked: they are held back.
        """
        is_traceback, is_open = False, True
        with source:
            for line in source:
                self._silent_until = math.inf
                is_traceback = is_traceback or line.startswith("Traceback (most recent call last):")
                is_repetition = self.is_stopping and _STOPPED_START.match(line)
                if is_repetition or (not self.is_direct and (is_traceback or _LAUNCHER_LINE.match(line))):
                    self._held_output.append(line)
                elif is_open:
                    try:
                        target.write(_RANK_0_PREFIX.sub("", line))
                        target.flush()
                    except OSError:  # the reader of our output has ended
                        is_open = False
                        if not self.is_stopping:
                            self.stop()
