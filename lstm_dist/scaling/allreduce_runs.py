"""Measure the allreduce alone: with Horovod, as in a training step, and with plain MPI as the lower bound."""

import json
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.subprocess_job import Outcome, Source, execute
from lstm_dist.scaling.runner import Folder

PROGRAM = ("-m", "lstm_dist.scaling.allreduce_worker")


class Probe(NamedTuple):
    """One job: the communication path (horovod-mpi, horovod-gloo or mpi) and the number of workers."""

    path: str
    workers: int

    @property
    def name(self) -> str:
        """The name of the probe's folder."""
        return f"{self.path}-n{self.workers:03d}"


class Network:
    """The probes of an experiment, by name."""

    def __init__(
        self, probes: Sequence[Probe], folder: Folder, launcher: Launcher, seconds: float, largest: int
    ) -> None:
        self.folder = folder.path / "network"
        self._probes = {probe.name: probe for probe in probes}
        self._launcher = launcher
        self._limits = [f"{seconds:g}", str(largest)]
        self._source = Source.here()

    @property
    def workers(self) -> Dict[str, int]:
        """Number of workers of each probe, by name, in execution order."""
        return {name: probe.workers for name, probe in self._probes.items()}

    def command(self, name: str) -> List[str]:
        """Return the command of a probe's job."""
        probe, result = self._probes[name], (self.folder / name / "result.json").resolve()
        controller = "gloo" if probe.path == "horovod-gloo" else "mpi"
        program = [*PROGRAM, probe.path, str(result), *self._limits]
        return self._launcher.program(probe.workers, program, controller)

    def measure(self, name: str, variables: Dict[str, str]) -> Dict[str, Any]:
        """Run a probe with these additional environment variables and return its row."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        environment = {**self._launcher.environment(), "OMP_NUM_THREADS": "1", **variables}
        return self.row(name, execute(self.command(name), place / "output.txt", environment))

    def row(self, name: str, outcome: Outcome) -> Dict[str, Any]:
        """Return the row of a completed probe."""
        result = self.folder / name / "result.json"
        return {
            **self._source.row(name, outcome, result), **self._probes[name]._asdict(),
            "sizes": [] if outcome.status else json.loads(result.read_bytes())["sizes"],
        }  # fmt: skip
