"""Submit the jobs of an experiment as Slurm job arrays, one for all jobs of a size, and collect their rows."""

import shlex
import subprocess
import time
from collections import defaultdict
from typing import Dict, Iterator, List, NamedTuple, Sequence, Set, Tuple

from lstm_dist.cluster.isolation import ROOT
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import write_json
from lstm_dist.experiments.records import read_json
from lstm_dist.experiments.subprocess_job import last_error
from lstm_dist.scaling.experiment_folder import ExperimentFolder

_SCRIPT = ROOT / "slurm" / "scaling.sbatch"
_POLL_INTERVAL = 2.0  # seconds between polls of the queue
_ROW_TIMEOUT = 10.0  # seconds for a shared file system to show the row of a job that has left the queue


class Request(NamedTuple):
    """What a job needs: tasks, at most `per_node` of them on a node, with `cores` each."""

    tasks: int
    per_node: int
    cores: int


class SlurmArray:
    """The submitted jobs by name, stored in the folder so that the same command can collect them later.

    Attributes:
        jobs: Slurm's job number of each job, by name.

    Raises:
        UserError: if `sbatch_flags` cannot be split into words, or the stored jobs are not JSON.
    """

    def __init__(self, folder: ExperimentFolder, requests: Dict[str, Request], sbatch_flags: str) -> None:
        self._folder = folder
        self._requests = requests
        try:
            self._sbatch_flags = shlex.split(sbatch_flags)
        except ValueError as error:
            reason = f"cannot be split into flags ({error}): check its quotes"
            raise UserError(f"--sbatch {sbatch_flags}: {reason}") from None
        self._file = folder.path / "array.json"
        self.jobs: Dict[str, str] = read_json(self._file) if self._file.exists() else {}

    def commands(self, flags: Sequence[str]) -> List[List[str]]:
        """Return the commands that submit the jobs, one for all jobs with the same request."""
        return [self._command(request, names, flags) for request, names in _by_request(self._requests).items()]

    def _command(self, request: Request, names: Sequence[str], flags: Sequence[str]) -> List[str]:
        number, log = request.tasks, self._folder.path.resolve() / "slurm" / "%x-%A_%a.out"
        nodes = -(-number // request.per_node)
        cores = [f"--cpus-per-task={request.cores}"] if request.cores > 1 else []  # the script has 1
        return [
            "sbatch", "--parsable", f"--job-name=scaling-n{number:03d}", f"--array=0-{len(names) - 1}",
            f"--nodes={nodes}", f"--ntasks={number}", f"--ntasks-per-node={-(-number // nodes)}", *cores,
            f"--output={log}", *self._sbatch_flags, str(_SCRIPT), *names, "--", *flags,
        ]  # fmt: skip

    def submit(self, flags: Sequence[str]) -> None:
        """Submit the jobs that are not queued yet.

        Raises:
            UserError: if sbatch rejects a job; the message quotes sbatch.
        """
        queued = self._queued()
        missing = {name: request for name, request in self._requests.items() if self.jobs.get(name) not in queued}
        (self._folder.path / "slurm").mkdir(exist_ok=True)
        for request, names in _by_request(missing).items():
            done = _run(self._command(request, names, flags))
            if done.returncode:
                reason = (done.stderr.strip().splitlines() or ["no message"])[-1]
                message = f"--slurm-array: {request.tasks} workers: sbatch failed: {reason}"
                raise UserError(message, ExitStatus.BAD_CONFIG)
            job = done.stdout.strip().split(";")[0]
            self.jobs.update({name: f"{job}_{index}" for index, name in enumerate(names)})
            write_json(self._file, self.jobs)

    def collect(self, names: Sequence[str], kind: str) -> Iterator[Tuple[str, str]]:
        """Wait for the jobs, and yield the name of each that has ended, with an error.

        The error is "" if the job has written its row, else the last line of its log.
        """
        waiting: Set[str] = set(names)
        left: Dict[str, float] = {}  # when a job was first missing from the queue
        while waiting:
            queued, rows = self._queued(), self._folder.rows(kind)
            for name in sorted(waiting):
                if self.jobs[name] not in queued:
                    left.setdefault(name, time.monotonic())
                is_lost = name in left and time.monotonic() > left[name] + _ROW_TIMEOUT
                if name in rows or is_lost:
                    waiting.remove(name)
                    yield name, "" if name in rows else self._last_error(name)
            if waiting:
                time.sleep(_POLL_INTERVAL)

    def _last_error(self, name: str) -> str:
        logs = list((self._folder.path / "slurm").glob(f"*-{self.jobs[name]}.out"))
        return f"Slurm job {self.jobs[name]}: {last_error(logs[0]) if logs else 'it left no log'}"

    def _queued(self) -> Set[str]:
        """Return the jobs of this experiment that are pending or running."""
        numbers = {job.split("_")[0] for job in self.jobs.values()}
        if not numbers:
            return set()
        # squeue fails if it no longer knows any of the jobs; that means an empty set.
        return set(_run(["squeue", "-h", "-r", "-j", ",".join(sorted(numbers)), "-o", "%i"]).stdout.split())


def _by_request(jobs: Dict[str, Request]) -> Dict[Request, List[str]]:
    """Group the names by request; a name's position is its array index."""
    names: Dict[Request, List[str]] = defaultdict(list)
    for name, request in jobs.items():
        names[request].append(name)
    return dict(sorted(names.items()))


def _run(command: Sequence[str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    except FileNotFoundError:
        raise UserError(
            f"--slurm-array: {command[0]} is not on PATH: run this on a login node of a Slurm cluster"
        ) from None
