"""Running trials, each a job of jobs/train.py, and the rows that are kept of them."""

import json
import math
import os
import shlex
import shutil
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import settle, write_json
from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.records import Record, read_row
from lstm_dist.experiments.subprocess_job import execute, json_lines
from lstm_dist.sweep.grid import Trial


class Epoch(Record):
    """Perplexity after an epoch, of the training text and of what was held out."""

    epoch: int
    perplexity: float
    valid_perplexity: float


class TrialRow(Record):
    """What is kept of a trial; `message` is the last word of one that failed."""

    name: str
    values: Dict[str, str]
    seed: int
    state: str
    message: str
    command: str
    seconds: float
    epochs: Tuple[Epoch, ...]


class Setup(NamedTuple):
    """What all trials of a folder have in common."""

    flags: List[str]
    epochs: int
    workers: int


def read_setup(folder: Path) -> Setup:
    """That of the trials that a folder holds.

    Raises:
        UserError: naming --out, when it holds none.
    """
    try:
        return Setup(**json.loads((folder / "setup.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        raise UserError(f"--out {folder}: holds no trials yet", ExitStatus.NO_INPUT) from None


class Trials:
    """The trials of a folder: `setup.json`, and a row and a run for every one that is done."""

    def __init__(self, trials: Sequence[Trial], setup: Setup, folder: Path, launcher: Launcher) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._setup, self._folder, self._launcher = setup, folder, launcher

    @property
    def number(self) -> int:
        """Of all trials."""
        return len(self._trials)

    def open(self) -> None:
        """Begin, or go on.

        Raises:
            UserError: naming --out, when it holds something else, or cannot be written.
        """
        settle(self._folder / "setup.json", self._setup._asdict(), "trials")

    def command(self, name: str) -> List[str]:
        """Of one trial."""
        setup = self._setup
        flags = [
            *setup.flags, *self._trials[name].flags, f"--epochs={setup.epochs}", f"--log-every={setup.epochs}",
            "--checkpoint-every=1h", f"--run-dir={(self._folder / name / 'run').resolve()}",
        ]  # fmt: skip
        return self._launcher.training(setup.workers, flags)

    def missing(self, again: bool) -> List[str]:
        """Those that have no row, and those that failed if they are to be run again, in their order."""
        kept = {row.name for row in read(self._folder) if not (again and row.state == "failed")}
        return [name for name in self._trials if name not in kept]

    def run(self, name: str) -> TrialRow:
        """Run one to its end, and keep its row."""
        place = self._folder / name
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **self._launcher.environment()}
        outcome = execute(self.command(name), place / "output.txt", environment)
        lines = [] if outcome.status else json_lines(place / "run" / "metrics.jsonl")
        trial, is_sound = self._trials[name], all(map(is_finite, lines))
        row = TrialRow(
            name=name,
            values=dict(trial.values),
            seed=trial.seed,
            state="failed" if outcome.status or not is_sound else "finished",
            message=outcome.message if is_sound else "its perplexity is not finite",
            command=shlex.join(self.command(name)),
            seconds=outcome.seconds,
            epochs=tuple(map(Epoch.model_validate, lines)) if is_sound else (),
        )
        write_json(place / "row.json", row.model_dump())
        return row


def is_finite(line: Dict[str, Any]) -> bool:
    """Whether both perplexities of an epoch are numbers."""
    return math.isfinite(line["perplexity"]) and math.isfinite(line["valid_perplexity"])


def read(folder: Path) -> List[TrialRow]:
    """The rows that a folder holds.

    Raises:
        UserError: naming one that is damaged.
    """
    return [read_row(path, TrialRow) for path in sorted(folder.glob("*/row.json"))]
