"""Measure the allreduce alone: with Horovod, as in a training step, and with plain MPI as the lower bound."""

import json
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.subprocess_job import JobOutcome, ProgramVersion, create_folder, execute
from lstm_dist.scaling.experiment_folder import ExperimentFolder

PROGRAM = ("-m", "lstm_dist.scaling.allreduce_worker")


class AllreduceJob(NamedTuple):
    """A job that only runs allreduces.

    Attributes:
        path: communication path: horovod-mpi, horovod-gloo or mpi.
        workers: number of workers.
    """

    path: str
    workers: int

    @property
    def name(self) -> str:
        """Return the name of the job's folder."""
        return f"{self.path}-n{self.workers:03d}"


class AllreduceRuns:
    """The jobs of an experiment that only run allreduces, by name."""

    def __init__(
        self, jobs: Sequence[AllreduceJob], folder: ExperimentFolder, launcher: Launcher, seconds: float, largest: int
    ) -> None:
        self.folder = folder.path / "network"
        self._jobs = {job.name: job for job in jobs}
        self._launcher = launcher
        self._limits = [f"{seconds:g}", str(largest)]
        self._version = ProgramVersion.current()

    @property
    def workers(self) -> Dict[str, int]:
        """Return the number of workers of each job, by name, in execution order."""
        return {name: job.workers for name, job in self._jobs.items()}

    @property
    def paths(self) -> List[str]:
        """Return the measured paths."""
        return list(dict.fromkeys(job.path for job in self._jobs.values()))

    def command(self, name: str) -> List[str]:
        """Return the command of a job."""
        job, result = self._jobs[name], (self.folder / name / "result.json").resolve()
        controller = "gloo" if job.path == "horovod-gloo" else "mpi"
        program = [*PROGRAM, job.path, str(result), *self._limits]
        return self._launcher.program_command(job.workers, program, controller)

    def measure(self, name: str, variables: Dict[str, str]) -> Dict[str, Any]:
        """Run a job with these additional environment variables and return its row."""
        folder = self.folder / name
        create_folder(folder)
        environment = {**self._launcher.environment(), "OMP_NUM_THREADS": "1", **variables}
        return self.row(name, execute(self.command(name), folder, environment))

    def row(self, name: str, outcome: JobOutcome) -> Dict[str, Any]:
        """Return the row of a job that has ended."""
        result = self.folder / name / "result.json"
        return {
            **self._version.common_fields(name, outcome, result), **self._jobs[name]._asdict(),
            "sizes": [] if outcome.status else json.loads(result.read_bytes())["sizes"],
        }  # fmt: skip
