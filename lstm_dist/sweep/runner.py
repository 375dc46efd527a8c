"""Run trials as jobs of jobs/train.py, and store their rows."""

import json
import math
import os
import shlex
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import create_or_continue, write_json
from lstm_dist.experiments.launchers import Launcher
from lstm_dist.experiments.records import Record, read_row
from lstm_dist.experiments.subprocess_job import create_folder, execute, read_json_lines
from lstm_dist.run.metrics_file import FILE as METRICS
from lstm_dist.run.metrics_file import is_epoch
from lstm_dist.sweep.grid import Trial


class EpochPerplexity(Record):
    """Perplexity on the training text and on the validation set, after one epoch."""

    epoch: int
    perplexity: float
    valid_perplexity: float


class TrialRow(Record):
    """Stored result of a trial; `message` is the last error message of a failed one."""

    name: str
    values: Dict[str, str]
    seed: int
    state: str
    message: str
    command: str
    seconds: float
    epochs: Tuple[EpochPerplexity, ...]


class SweepSettings(NamedTuple):
    """Settings common to all trials of a folder."""

    flags: List[str]
    epochs: int
    workers: int


def read_settings(folder: Path) -> SweepSettings:
    """Read the settings of a folder's trials.

    Raises:
        UserError: if the folder holds none; the message names --out.
    """
    try:
        return SweepSettings(**json.loads((folder / "setup.json").read_bytes()))
    except (OSError, ValueError, TypeError):
        raise UserError(f"--out {folder}: holds no trials yet", ExitStatus.NO_INPUT) from None


class Trials:
    """The trials of a folder: `setup.json`, and a row and a run for every completed trial.

    Attributes:
        launcher: of the workers.
    """

    def __init__(self, trials: Sequence[Trial], settings: SweepSettings, folder: Path, launcher: Launcher) -> None:
        self._trials = {trial.name: trial for trial in trials}
        self._settings, self._folder, self.launcher = settings, folder, launcher

    @property
    def total(self) -> int:
        """Return the total number of trials."""
        return len(self._trials)

    def open(self) -> None:
        """Create or continue the folder.

        Raises:
            UserError: if the folder holds something else, or cannot be written; the message names --out.
        """
        create_or_continue(self._folder / "setup.json", self._settings._asdict(), "trials")

    def command(self, name: str) -> List[str]:
        """Return the command of a trial."""
        settings = self._settings
        flags = [
            *settings.flags, *self._trials[name].flags, f"--epochs={settings.epochs}", f"--log-every={settings.epochs}",
            "--checkpoint-every=1h", f"--run-dir={(self._folder / name / 'run').resolve()}",
        ]  # fmt: skip
        return self.launcher.train_command(settings.workers, flags)

    def missing(self, retry_failed: bool) -> List[str]:
        """Return, in order, the trials without a row, and also the failed ones if `retry_failed`."""
        kept = {row.name for row in read_rows(self._folder) if not (retry_failed and row.state == "failed")}
        return [name for name in self._trials if name not in kept]

    def run(self, name: str) -> TrialRow:
        """Run a trial to completion and store its row."""
        folder = self._folder / name
        create_folder(folder)
        environment = {"OMP_NUM_THREADS": "1", **os.environ, **self.launcher.environment()}
        outcome = execute(self.command(name), folder, environment)
        lines = [] if outcome.has_failed else list(filter(is_epoch, read_json_lines(folder / "run" / METRICS)))
        trial, all_finite = self._trials[name], all(map(is_finite, lines))
        row = TrialRow(
            name=name,
            values=dict(trial.values),
            seed=trial.seed,
            state="failed" if outcome.has_failed or not all_finite else "finished",
            message=outcome.message if all_finite else "the perplexity is not finite",
            command=shlex.join(self.command(name)),
            seconds=outcome.seconds,
            epochs=tuple(map(EpochPerplexity.model_validate, lines)) if all_finite else (),
        )
        write_json(folder / "row.json", row.model_dump())
        return row


def is_finite(line: Dict[str, Any]) -> bool:
    """Return whether both perplexities of an epoch are finite."""
    return math.isfinite(line["perplexity"]) and math.isfinite(line["valid_perplexity"])


def read_rows(folder: Path) -> List[TrialRow]:
    """Read all rows of a folder.

    Raises:
        UserError: if a row is invalid; the message names it.
    """
    return [read_row(path, TrialRow) for path in sorted(folder.glob("*/row.json"))]
