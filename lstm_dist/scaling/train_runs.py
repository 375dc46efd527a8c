"""Measure training: every point is a job of jobs/train.py."""

import shlex
from pathlib import Path
from statistics import median
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.subprocess_job import JobOutcome, ProgramVersion, create_folder, execute, read_json_lines
from lstm_dist.run.metrics_file import FILE as METRICS
from lstm_dist.run.metrics_file import is_epoch
from lstm_dist.scaling.experiment_folder import ExperimentFolder
from lstm_dist.scaling.experiment_text import text_length
from lstm_dist.scaling.job_energy import job_energy
from lstm_dist.scaling.point import Point
from lstm_dist.scaling.records import Experiment


class Target(NamedTuple):
    """Target perplexity of the points of mode perplexity, and the maximum number of epochs."""

    perplexity: float
    max_epochs: int


def train_flags(experiment: Experiment, point: Point, corpus: Path, target: Target) -> List[str]:
    """Return the flags of jobs/train.py for one point; `corpus` is the text of the timed points."""
    flags = [*experiment.flags, f"--global-batch-size={point.streams}", "--checkpoint-every=1h", "--sample-length=1"]
    if point.varied.wire_dtype:
        flags.append(f"--wire-dtype={point.varied.wire_dtype}")
    if point.mode == "perplexity":
        return [
            *flags, f"--until-perplexity={target.perplexity:g}", f"--epochs={target.max_epochs}",
            f"--log-every={target.max_epochs}", f"--seed={point.repeat - 1}", f"--max-chars={experiment.max_chars}",
        ]  # fmt: skip
    chars = text_length(point.streams, experiment.steps, experiment.seq_len)
    return [
        *_without_corpus(flags), f"--corpus={corpus}", "--encoding=utf-8", f"--max-chars={chars}",
        f"--epochs={experiment.epochs}", f"--log-every={experiment.epochs}", f"--time-every={experiment.time_every}",
    ]  # fmt: skip


def _without_corpus(flags: Sequence[str]) -> List[str]:
    """Return flags of jobs/train.py without --corpus, which would name another text in addition."""
    values = {number + 1 for number, flag in enumerate(flags) if flag == "--corpus"}
    return [flag for k, flag in enumerate(flags) if k not in values and flag.partition("=")[0] != "--corpus"]


class TrainRuns:
    """The training jobs of an experiment, by name."""

    def __init__(
        self, points: Sequence[Point], experiment: Experiment, folder: ExperimentFolder, launcher: Launcher,
        target: Target,
    ) -> None:  # fmt: skip
        self.folder = folder.path / "points"
        self._points = {point.name: point for point in points}
        self._experiment = experiment
        self._launcher = launcher
        self._target = target
        self._corpus = (folder.path / "corpus.txt").resolve()
        self._version = ProgramVersion.current()

    @property
    def workers(self) -> Dict[str, int]:
        """Return the number of workers of each job, by name, in execution order."""
        return {name: point.workers for name, point in self._points.items()}

    def command(self, name: str) -> List[str]:
        """Return the command of a job."""
        point = self._points[name]
        varied = point.varied
        launcher = self._launcher.varied(varied.workers_per_node, varied.controller)
        run_dir = (self.folder / name / "run").resolve()
        flags = train_flags(self._experiment, point, self._corpus, self._target)
        return launcher.train_command(point.workers, [*flags, f"--run-dir={run_dir}"])

    def settings(self, name: str) -> Experiment:
        """Return the settings of a job."""
        return self._experiment.varied(self._points[name].varied)

    def measure(self, name: str, variables: Dict[str, str]) -> Dict[str, Any]:
        """Run a job with these additional environment variables and return its row."""
        folder = self.folder / name
        create_folder(folder)
        environment = {**self._launcher.environment(), "OMP_NUM_THREADS": str(self.settings(name).threads), **variables}
        return self.row(name, execute(self.command(name), folder, environment))

    def row(self, name: str, outcome: JobOutcome) -> Dict[str, Any]:
        """Return the row of a job that has ended."""
        point, run_dir, warm_up = self._points[name], self.folder / name / "run", self._experiment.warm_up
        row = {
            **self._version.common_fields(name, outcome, run_dir / "run.json"), **point._asdict(),
            "varied": point.varied.given, "command": shlex.join(self.command(name)),
            "bytes": self.settings(name).bytes, "epochs": [], "times": [],
        }  # fmt: skip
        if outcome.has_failed:
            return row
        metrics = list(filter(is_epoch, read_json_lines(run_dir / METRICS)))
        if point.mode == "perplexity":
            last, target = metrics[-1], self._target.perplexity
            chars = last["step"] * point.streams * self._experiment.seq_len
            row.update(target=target, reached=last["perplexity"] <= target, chars=chars, train_seconds=last["seconds"])
            row["energy"] = job_energy(run_dir / "run.json", metrics, chars, chars)
        else:
            steps, epochs = self._experiment.steps, metrics[warm_up:]
            chars = steps * point.streams * self._experiment.seq_len  # of an epoch
            row["energy"] = job_energy(run_dir / "run.json", epochs, len(epochs) * chars, len(metrics) * chars)
            row["epochs"] = [{"chars_per_sec": epoch["chars_per_sec"], "steps": steps} for epoch in epochs]
            profiles = read_json_lines(run_dir / "times.jsonl")
            row["times"] = [profile for profile in profiles if profile["epoch"] > warm_up]
            sent = [profile["bytes"] for profile in row["times"] if "bytes" in profile]
            row["bytes"] = round(median(sent)) if sent else row["bytes"]
        return row
