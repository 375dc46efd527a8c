"""A job of launch/cluster.sh on simulated hosts that are lost and return, and what it has committed."""

import contextlib
import json
import os
import re
import signal
import subprocess
import threading
import time
import uuid
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import numpy as np

from lstm_dist.run.checkpoint import load_checkpoint, unpack
from lstm_dist.run.checkpoint_dir import CheckpointDir, step_of
from tests.support import programs
from tests.support.launchers import ENVIRONMENT
from tests.support.network import Host, wait_until
from tests.support.programs import ROOT, TRAIN, newest

CLUSTER = str(ROOT / "launch" / "cluster.sh")
# Steps of some milliseconds, and a learning rate at which rounding errors do not grow.
FLAGS = (
    "--hidden-size=8", "--global-batch-size=6", "--seq-len=5", "--max-chars=600", "--learning-rate=0.001",
    "--epochs=1000000", "--log-every=1000000", "--sample-length=5",
)  # fmt: skip
STALL = 8.0  # seconds


class ElasticJob:
    """A running job; use it as a context manager, which kills what it leaves behind.

    Attributes:
        run_dir: of the job.
        first_start: seconds from its start to its first commit after the first step.
    """

    def __init__(self, supervisor: Host, folder: Path, *flags: str, commit_every: str = "0.5s") -> None:
        """Start the job on a host, and wait until it trains."""
        self.run_dir, self._output = folder / "run", folder / "output.txt"
        self._flags = [word for word in flags if word.startswith("--corpus")]
        self._mark = uuid.uuid4().hex
        env = {**programs.environment({**ENVIRONMENT, "PYTHON": None}), programs.MARK: self._mark}
        command = [CLUSTER, *flags, "--interface=eth0", *FLAGS, f"--stall-timeout={STALL:g}"]
        began = time.monotonic()
        self._clock = OutsideClock(self.run_dir / "log.txt")
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                supervisor.inside(*command, f"--checkpoint-every={commit_every}", f"--run-dir={self.run_dir}"), env=env,
                stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.await_commits(3, "training")
        self.first_start = time.monotonic() - began

    def __enter__(self) -> "ElasticJob":
        return self

    def __exit__(self, *_: object) -> None:
        for pid in [self.process.pid, *programs.started_by(self._mark)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait(timeout=20)

    def output(self) -> str:
        return self._output.read_text(errors="replace")

    def committed(self) -> List[int]:
        """Return the steps whose commits the log reports."""
        with contextlib.suppress(OSError):
            return [int(step) for step in re.findall(r"committed step-(\d+)", (self.run_dir / "log.txt").read_text())]
        return []

    def await_commits(self, number: int, what: str, seconds: float = 120) -> float:
        """Wait for further commits; return the seconds until then."""
        began, before = time.monotonic(), len(self.committed())

        def has_committed() -> bool:
            assert self.process.poll() is None, self.output()
            return len(self.committed()) >= before + number

        self._await(has_committed, what, seconds)
        return time.monotonic() - began

    def await_line(self, pattern: str, seconds: float = 120) -> str:
        """Wait for a line of output that contains a pattern, and return it."""
        found: List[str] = []

        def has_line() -> bool:
            found[:] = [line for line in self.output().splitlines() if re.search(pattern, line)]
            return bool(found)

        self._await(has_line, pattern, seconds)
        return found[-1]

    def _await(self, holds: Callable[[], bool], what: str, seconds: float) -> None:
        try:
            wait_until(holds, what, seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.output()}") from None

    def allowed(self, target: float) -> float:
        """Return a limit in seconds that also holds beside other tests on a slow machine; the tests print the times."""
        return 3 * (target + self.first_start)

    def workers(self, host: Optional[str] = None) -> List[int]:
        """Return the processes of the job's workers, or of those on one host."""
        return [pid for pid in programs.started_by(self._mark) if is_worker(pid) and host in (None, host_of(pid))]

    def left(self, seconds: float) -> List[str]:
        """Return the command lines of processes that still run after some seconds."""
        return [command(pid).replace("\0", " ") for pid in programs.wait_for_end(self._mark, seconds)]

    def has_lost_a_commit(self) -> bool:
        """Return whether the newest checkpoint is damaged or older than the last commit in the log."""
        said, paths = self.committed(), CheckpointDir.of_run(self.run_dir).paths()
        unpack(paths[0].read_bytes(), paths[0].name)
        return step_of(paths[0]) < said[-1]

    def stop(self) -> int:
        """Ask the job to stop, and return its exit status."""
        (self.run_dir / "STOP").touch()
        status = self.process.wait(timeout=120)
        self._measured = self._clock.close()
        (self.run_dir / "STOP").unlink(missing_ok=True)  # of a job that had given up
        return status

    def goodputs(self) -> Tuple[float, float]:
        """Return the goodput of the job that has ended, as it says and as a clock outside measured it."""
        card = json.loads((self.run_dir / "run.json").read_bytes())
        return card["goodput"]["fraction"], self._measured

    def difference(self) -> float:
        """Train this run and an undisturbed one to the end of the epoch, with one worker; return how they differ.

        The difference is the largest of any parameter, relative to the largest element of this parameter.
        """
        end = unpack(newest(self.run_dir).read_bytes(), "").facts["progress"]["epoch"] + 1
        whole = self.run_dir.parent / "whole"
        for how in (["--resume", f"--run-dir={self.run_dir}"], [*FLAGS, *self._flags, f"--run-dir={whole}"]):
            done = programs.run([*TRAIN, *how, f"--epochs={end}"], env=ENVIRONMENT, timeout=1200)
            assert done.returncode == 0, done.stderr
        ours, theirs = (load_checkpoint(newest(path), "").parameters for path in (self.run_dir, whole))
        return max(float(np.abs(ours[name] - theirs[name]).max() / np.abs(theirs[name]).max()) for name in theirs)


class OutsideClock:
    """A clock outside a job, which tells from the moments at which its log grows how long it did steps that count.

    It starts when an attempt resumes, and is read at each commit, without the time that the commit took.
    """

    def __init__(self, log: Path) -> None:
        self._log, self._read = log, 0
        self._began = self._since = time.monotonic()
        self._steps = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def close(self) -> float:
        """Stop the clock, and return the share of the steps that count."""
        self._over.set()
        self._thread.join()
        return self._steps / (time.monotonic() - self._began)

    def _watch(self) -> None:
        while not self._over.wait(0.01):
            with contextlib.suppress(OSError), self._log.open("rb") as log:
                log.seek(self._read)
                new = log.read()
                self._read += len(new)
                for line in new.decode(errors="replace").splitlines():
                    self._take(line)

    def _take(self, line: str) -> None:
        now = time.monotonic()
        commit = re.match(r"committed step-(\d+)\S* in (\d+) ms", line)
        if commit and int(commit[1]):
            self._steps += now - self._since - int(commit[2]) / 1000
        if commit or line.startswith("resumed after"):
            self._since = now


def command(pid: int) -> str:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    return ""


def is_worker(pid: int) -> bool:
    words = command(pid).split("\0")
    return "python" in words[0] and any(word.endswith("jobs/train.py") for word in words[1:2])


def host_of(pid: int) -> str:
    """Return the name of the simulated host that a process runs on."""
    done: Sequence[str] = ["nsenter", "--target", str(pid), "--uts", "hostname"]
    return subprocess.run(done, capture_output=True, text=True, check=False).stdout.strip()
