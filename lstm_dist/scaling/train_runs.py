"""Measure training: every point is a job of jobs/train.py."""

import shlex
import shutil
from typing import Any, Dict, List, Sequence

from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.subprocess_job import Outcome, Source, execute, json_lines
from lstm_dist.scaling.point import Point
from lstm_dist.scaling.runner import Experiment, Folder, Target


class Training:
    """The points of an experiment, by name."""

    def __init__(
        self, points: Sequence[Point], experiment: Experiment, folder: Folder, launcher: Launcher, target: Target
    ) -> None:
        self.folder = folder.path / "points"
        self._points = {point.name: point for point in points}
        self._experiment = experiment
        self._launcher = launcher
        self._target = target
        self._corpus = (folder.path / "corpus.txt").resolve()
        self._source = Source.here()

    @property
    def workers(self) -> Dict[str, int]:
        """Number of workers of each point, by name, in execution order."""
        return {name: point.workers for name, point in self._points.items()}

    def command(self, name: str) -> List[str]:
        """Return the command of a point's job."""
        point = self._points[name]
        flags = self._experiment.train_flags(point, self._corpus, self._target)
        return self._launcher.training(point.workers, [*flags, f"--run-dir={(self.folder / name / 'run').resolve()}"])

    def measure(self, name: str, variables: Dict[str, str]) -> Dict[str, Any]:
        """Run a point with these additional environment variables and return its row."""
        place = self.folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment = {**self._launcher.environment(), "OMP_NUM_THREADS": str(self._experiment.threads), **variables}
        return self.row(name, execute(self.command(name), place / "output.txt", environment))

    def row(self, name: str, outcome: Outcome) -> Dict[str, Any]:
        """Return the row of a completed point."""
        point, run_dir, first = self._points[name], self.folder / name / "run", self._experiment.warm_up
        row = {
            **self._source.row(name, outcome, run_dir / "run.json"), **point._asdict(),
            "command": shlex.join(self.command(name)), "bytes": self._experiment.bytes, "epochs": [], "times": [],
        }  # fmt: skip
        if outcome.status:
            return row
        metrics = json_lines(run_dir / "metrics.jsonl")
        if point.mode == "perplexity":
            last, wanted = metrics[-1], self._target.perplexity
            chars = last["step"] * point.streams * self._experiment.seq_len
            row.update(target=wanted, reached=last["perplexity"] <= wanted, chars=chars, train_seconds=last["seconds"])
        else:
            steps = self._experiment.steps
            row["epochs"] = [{"chars_per_sec": one["chars_per_sec"], "steps": steps} for one in metrics[first:]]
            row["times"] = [one for one in json_lines(run_dir / "times.jsonl") if one["epoch"] > first]
        return row
