"""Measuring the allreduce alone: by way of Horovod, as a step has it, and by MPI itself, as the network could do it."""

import json
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.subprocess_job import Outcome, Source, execute
from lstm_dist.scaling.runner import Folder

PROGRAM = ("-m", "lstm_dist.scaling.allreduce_worker")


class Probe(NamedTuple):
    """One job: a way of sending, horovod-mpi, horovod-gloo or mpi, and the number of workers."""

    path: str
    workers: int

    @property
    def name(self) -> str:
        """By which its folder is called."""
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
        """Their numbers, by the names of all probes, in the order in which these are to be run."""
        return {name: probe.workers for name, probe in self._probes.items()}

    def command(self, name: str) -> List[str]:
        """The command of a probe's job."""
        probe, result = self._probes[name], (self.folder / name / "result.json").resolve()
        controller = "gloo" if probe.path == "horovod-gloo" else "mpi"
        program = [*PROGRAM, probe.path, str(result), *self._limits]
        return self._launcher.program(probe.workers, program, controller)

    def measure(self, name: str, variables: Dict[str, str]) -> Dict[str, Any]:
        """Run a probe, in an environment with these variables too; its row."""
        place = self.folder / name
        place.mkdir(parents=True, exist_ok=True)
        environment = {**self._launcher.environment(), "OMP_NUM_THREADS": "1", **variables}
        return self.row(name, execute(self.command(name), place / "output.txt", environment))

    def row(self, name: str, outcome: Outcome) -> Dict[str, Any]:
        """That of a probe whose job has ended so."""
        result = self.folder / name / "result.json"
        return {
            **self._source.row(name, outcome, result), **self._probes[name]._asdict(),
            "sizes": [] if outcome.status else json.loads(result.read_bytes())["sizes"],
        }  # fmt: skip
