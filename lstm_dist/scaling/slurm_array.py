"""The jobs of an experiment as arrays of Slurm jobs, one array a number of workers: submitted, and collected."""

import json
import shlex
import subprocess
import time
from collections import defaultdict
from typing import Dict, Iterator, List, Sequence, Set, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import write_json
from lstm_dist.experiments.launchers import ROOT
from lstm_dist.experiments.subprocess_job import last_words
from lstm_dist.scaling.runner import Folder

_SCRIPT = ROOT / "slurm" / "scaling.sbatch"
_POLL = 2.0  # seconds between two looks at the queue
_LATE = 10.0  # seconds in which a shared file system shows the row of a job that has left the queue


class Array:
    """What is in the queue: every name's job, kept in the folder so that the same command can collect it later."""

    def __init__(self, folder: Folder, per_node: int, sbatch_flags: str) -> None:
        self._folder = folder
        self._per_node = per_node
        self._sbatch_flags = shlex.split(sbatch_flags)
        self._file = folder.path / "array.json"
        self.jobs: Dict[str, str] = json.loads(self._file.read_bytes()) if self._file.exists() else {}

    def commands(self, workers: Dict[str, int], flags: Sequence[str]) -> List[List[str]]:
        """The commands that submit these jobs, given by their names: one a number of workers."""
        return [self._command(number, names, flags) for number, names in _by_number(workers).items()]

    def _command(self, number: int, names: Sequence[str], flags: Sequence[str]) -> List[str]:
        nodes, log = -(-number // self._per_node), self._folder.path.resolve() / "slurm" / "%x-%A_%a.out"
        return [
            "sbatch", "--parsable", f"--job-name=scaling-n{number:03d}", f"--array=0-{len(names) - 1}",
            f"--nodes={nodes}", f"--ntasks={number}", f"--ntasks-per-node={-(-number // nodes)}", f"--output={log}",
            *self._sbatch_flags, str(_SCRIPT), *names, "--", *flags,
        ]  # fmt: skip

    def submit(self, workers: Dict[str, int], flags: Sequence[str]) -> None:
        """Submit what is not in the queue already.

        Raises:
            UserError: with what sbatch says, when it does not take a job.
        """
        queued = self._queued()
        workers = {name: number for name, number in workers.items() if self.jobs.get(name) not in queued}
        (self._folder.path / "slurm").mkdir(exist_ok=True)
        for number, names in _by_number(workers).items():
            done = _run(self._command(number, names, flags))
            if done.returncode:
                said = (done.stderr.strip().splitlines() or ["nothing"])[-1]
                raise UserError(f"--slurm-array: {number} workers: sbatch says {said}", ExitStatus.BAD_CONFIG)
            job = done.stdout.strip().split(";")[0]
            self.jobs.update({name: f"{job}_{index}" for index, name in enumerate(names)})
            write_json(self._file, self.jobs)

    def collect(self, names: Sequence[str], kind: str) -> Iterator[Tuple[str, str]]:
        """Wait for the jobs: each name when it has a row, with nothing, or when none can come any more, with why."""
        waiting: Set[str] = set(names)
        gone: Dict[str, float] = {}
        while waiting:
            queued, rows = self._queued(), self._folder.rows(kind)
            for name in sorted(waiting):
                if self.jobs[name] not in queued:
                    gone.setdefault(name, time.monotonic())
                lost = name in gone and time.monotonic() > gone[name] + _LATE
                if name in rows or lost:
                    waiting.remove(name)
                    yield name, "" if name in rows else self._last_words(name)
            if waiting:
                time.sleep(_POLL)

    def _last_words(self, name: str) -> str:
        logs = list((self._folder.path / "slurm").glob(f"*-{self.jobs[name]}.out"))
        return f"Slurm job {self.jobs[name]}: {last_words(logs[0]) if logs else 'it has left no log'}"

    def _queued(self) -> Set[str]:
        """The jobs of this experiment that are waiting or running."""
        numbers = {job.split("_")[0] for job in self.jobs.values()}
        if not numbers:
            return set()
        # Where none of them is known any more, that is an error to squeue, and an empty set here.
        return set(_run(["squeue", "-h", "-r", "-j", ",".join(sorted(numbers)), "-o", "%i"]).stdout.split())


def _by_number(workers: Dict[str, int]) -> Dict[int, List[str]]:
    """The names of each number of workers, whose place there is their index in its array."""
    names: Dict[int, List[str]] = defaultdict(list)
    for name, number in workers.items():
        names[number].append(name)
    return dict(sorted(names.items()))


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise UserError(f"--slurm-array: there is no {command[0]} on PATH: is this a cluster with Slurm?") from None
