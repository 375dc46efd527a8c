"""Run one job of an experiment and record where it ran."""

import contextlib
import fcntl
import json
import os
import re
import shutil
import subprocess
import time
from collections import Counter, defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Set

from lstm_dist.cluster.launch_env import die_with_parent
from lstm_dist.cluster.source_code import code_digest, git_facts
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.launchers import TRAIN
from lstm_dist.files import is_locked

_LAUNCHER_PREFIX = re.compile(r"^\[\d+,\d+\]<std(out|err)>:|^-+$")
_ERROR = re.compile(r"error: |(\w+\.)*\w+Error\b")
_STOP_TIMEOUT = 60.0  # seconds that a job may take to end when its experiment is interrupted
OUTPUT = "output.txt"  # of a job, in its folder


class JobOutcome(NamedTuple):
    """Result of a command: exit status, last error message if it failed, and duration in seconds."""

    status: int
    message: str
    seconds: float

    @property
    def has_failed(self) -> bool:
        """Return whether the job has no results; one whose training has diverged has those of all epochs."""
        return self.status not in (ExitStatus.FINISHED, ExitStatus.DIVERGED)


class ProgramVersion(NamedTuple):
    """The version of the measured program: its commit, and the digest of its code."""

    commit: str
    code: str

    @classmethod
    def current(cls) -> "ProgramVersion":
        """Return the version of the running program."""
        return cls(str(git_facts()["git_commit"]), code_digest(TRAIN))

    def common_fields(self, name: str, outcome: JobOutcome, run_card: Path) -> Dict[str, Any]:
        """Return the row fields common to all jobs; `run_card` is the file in which the job described its run."""
        state = "failed" if outcome.has_failed else "finished"
        return {"id": name, "state": state, **outcome._asdict(), **self._asdict(), **describe_placement(run_card)}


def create_folder(folder: Path) -> None:
    """Create the folder of a job, without what an earlier job has left there.

    A job outlives an experiment that was killed by some seconds, in which it would write to the new folder. Its
    launcher holds the lock on its output until all workers have ended.

    Raises:
        UserError: naming the file, if the earlier job does not end.
    """
    output, deadline = folder / OUTPUT, time.monotonic() + _STOP_TIMEOUT
    while is_locked(output):
        if time.monotonic() > deadline:
            raise UserError(
                f"--out: {output} is in use by a job of an interrupted experiment: end that job and repeat the command",
                ExitStatus.CANNOT_CREATE,
            )
        time.sleep(0.2)
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)


def execute(command: Sequence[str], folder: Path, variables: Dict[str, str]) -> JobOutcome:
    """Run a command to completion with its output in a file of the folder; it ends when this process ends."""
    began, output = time.monotonic(), folder / OUTPUT
    with output.open("wb") as file:
        with contextlib.suppress(OSError):  # a file system without locks
            fcntl.flock(file, fcntl.LOCK_EX)  # inherited by the command with its stdout
        process = subprocess.Popen(
            command, env=variables, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
            preexec_fn=partial(die_with_parent, os.getpid()),
        )  # fmt: skip
        try:
            status = process.wait()
        except BaseException:
            process.terminate()
            try:
                process.wait(timeout=_STOP_TIMEOUT)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return JobOutcome(status, last_error(output) if status else "", time.monotonic() - began)


def last_error(output: Path) -> str:
    """Return the job's last error message, or else its last line; launchers print more lines before and after it."""
    text = output.read_text(encoding="utf-8", errors="replace")
    lines = [line for line in (_LAUNCHER_PREFIX.sub("", line).strip() for line in text.splitlines()) if line]
    errors = [line for line in lines if _ERROR.match(line)]
    return (errors or lines or ["it ended without any output"])[-1]


def describe_placement(run_card: Path) -> Dict[str, Any]:
    """Describe where a job ran, from its run card; fields are empty if the job failed before it wrote one.

    Returns:
        `machine` as text, the number of `hosts`, the workers on the host with the most (`workers_per_host`), the number
        of `cores` of the workers, their `devices`, and whether they are `oversubscribed`: more threads than cores on a
        host, or several workers on a GPU.
    """
    try:
        card = json.loads(run_card.read_bytes())
    except (OSError, ValueError):
        nothing = {"hosts": 0, "workers_per_host": 0, "cores": 0, "devices": []}
        return {"machine": "", **nothing, "oversubscribed": False}
    cores: Dict[str, Set[int]] = defaultdict(set)
    threads: Dict[str, int] = defaultdict(int)
    for rank in card["ranks"]:
        cores[rank["host"]].update(rank["cores"])
        threads[rank["host"]] += max(1, rank["threads"])
    gpus = [(rank["host"], rank["gpu"]) for rank in card["ranks"] if rank["gpu"]]
    chips = sorted({(rank["gpu"] or rank["processor"]).split(" at ")[0] for rank in card["ranks"]})
    versions = [f"{name} {version}" for name, version in sorted(card["versions"].items())]
    return {
        "machine": ", ".join([*chips, f"Python {card['python']}", *versions]),
        "hosts": len(cores),
        "workers_per_host": max(Counter(rank["host"] for rank in card["ranks"]).values()),
        "cores": sum(map(len, cores.values())),
        "devices": sorted({rank["device"] for rank in card["ranks"]}),
        "oversubscribed": len(set(gpus)) < len(gpus) or (not gpus and any(threads[h] > len(cores[h]) for h in cores)),
    }


def read_json_lines(path: Path) -> List[Dict[str, Any]]:
    """Read the records of a JSON lines file; return none if the file does not exist."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
