"""Run logging on the root: console lines, JSON lines and a plot. The log of every other rank is silent."""

import json
import os
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Union

from tqdm import tqdm

from lstm_dist.errors import ExitStatus, UserError, printable
from lstm_dist.files import cannot_write, claim, is_superseded, remove_partials, superseded, sync
from lstm_dist.run import status
from lstm_dist.run.checkpoint_dir import FOLDER as CHECKPOINTS
from lstm_dist.run.console import open_console, write_in_time, written
from lstm_dist.run.metrics_file import FILE as METRICS
from lstm_dist.run.metrics_file import EpochMetrics, StepsReport, read_metrics
from lstm_dist.run.plot import draw_perplexity
from lstm_dist.run.resumed_records import SAMPLES, discard_later_records
from lstm_dist.run.run_card import CARD, write_card
from lstm_dist.run.status import ERRORS, STATUS
from lstm_dist.run.step_times import FILE as TIMES
from lstm_dist.run.step_times import StepShares
from lstm_dist.run.stop_request import FILE as STOP
from lstm_dist.run.tensorboard import Events, require_writer

# Files of a run directory outside its subfolders; --overwrite deletes these and the known files in the subfolders only.
RUN_FILES = ("config.json", CARD, STATUS, METRICS, TIMES, SAMPLES, "log.txt", "perplexity.png")
EVENTS = "events"  # folder of TensorBoard event files, if enabled
SHOWN = ("perplexity", "valid_perplexity", "bits_per_char", "grad_norm", "learning_rate", "chars_per_sec")  # there
FOLDERS = (CHECKPOINTS, ERRORS)


class RunLog:
    """The silent log of every rank except the root."""

    def start(
        self, config: Dict[str, Any], card: Dict[str, Any], epochs: int, chars_per_epoch: int, initial_chars: int = 0
    ) -> None:
        """Write config.json and run.json, and start the progress display."""

    def sync(self) -> None:
        """Sync the written files to disk."""

    def say(self, line: str) -> None:
        """Show one line, and keep it in log.txt."""

    def note(self, line: str) -> None:
        """Write one line to log.txt without showing it."""

    def advance(self, chars: int) -> None:
        """Move the progress bar."""

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:
        """Write an epoch's JSON line and, if `show`, its console line, also about the steps profiled since the last."""

    def report(self, report: StepsReport) -> None:
        """Write the JSON line and the console line of a report of steps."""

    def times(self, epoch: int, rows: List[Dict[str, Any]]) -> None:
        """Write the times of timed steps of an epoch, a line per step and worker, before `epoch` and `report`."""

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """Show and write a sample."""

    def finish(self) -> None:
        """Draw perplexity.png and show the run directory."""

    def last_perplexity(self) -> float:
        """Return the perplexity of the last epoch of the run; 0 if it is not logged here."""
        return 0.0


class RootLog(RunLog):
    """The root's log: files in `run_dir`, and console lines with a progress bar."""

    def __init__(
        self,
        run_dir: Path,
        overwrite: bool = False,
        resumed_epochs: Optional[int] = None,
        resumed_step: int = 0,
        reported_step: int = 0,
        lock: Optional[IO[str]] = None,
        with_events: bool = False,
    ) -> None:
        """Claim `run_dir` for this job and open its log files.

        Args:
            run_dir: the folder.
            overwrite: delete the run that it holds.
            resumed_epochs: resume the run that it holds after this number of epochs; records of later epochs are
                discarded.
            resumed_step: of a resumed run, the last one that it does not repeat.
            reported_step: of a resumed run, that of the last report to keep.
            lock: from `claim`, if it was already called.
            with_events: also write event files for TensorBoard.

        Raises:
            UserError: naming --run-dir, if it holds a run that is neither resumed nor overwritten, or cannot be
                written.
        """
        if with_events:
            require_writer()  # before any file is deleted
        self.run_dir = run_dir
        self._shares = StepShares()  # of the steps since the last console line
        self._last_perplexity = 0.0
        existing = [] if resumed_epochs is not None else existing_files(run_dir, overwrite)
        self._lock = lock or claim(run_dir)
        try:
            for name in FOLDERS:
                (run_dir / name).mkdir(exist_ok=True, mode=0o700)
            for path in existing:
                if path.name != CARD:  # it lists the starts of a run that begins again, and `start` replaces it
                    path.unlink()
            _remove_partials(run_dir)
            if resumed_epochs is not None:
                status.clear_failures(run_dir)
                discard_later_records(run_dir, resumed_epochs, resumed_step, reported_step)
                epochs = read_metrics(run_dir / METRICS).epochs
                self._last_perplexity = epochs[-1].perplexity if epochs else 0.0
            mode = "w" if resumed_epochs is None else "a"
            self._log = (run_dir / "log.txt").open(mode, encoding="utf-8")
            self._metrics = (run_dir / METRICS).open(mode, encoding="utf-8")
            self._samples = (run_dir / SAMPLES).open(mode, encoding="utf-8")
            first = (resumed_epochs or 0) + 1, reported_step + 1
            self._events = Events(run_dir / EVENTS, *first) if with_events else None
        except OSError as error:
            raise cannot_write(run_dir, str(error.strerror)) from None
        console = open_console()
        self._console: Optional[IO[str]] = console.stream
        self._bar: Any = tqdm(disable=True)
        self._is_terminal = console.is_terminal
        self._epochs = 0

    def start(  # noqa: D102
        self, config: Dict[str, Any], card: Dict[str, Any], epochs: int, chars_per_epoch: int, initial_chars: int = 0
    ) -> None:
        self._require_current()
        text = json.dumps(config, indent=2, ensure_ascii=False) + "\n"
        with written(self.run_dir / "config.json"):
            # A non-UTF-8 path contains lone surrogates, which are written as JSON escapes.
            (self.run_dir / "config.json").write_text(text, encoding="utf-8", errors="backslashreplace")
        with written(self.run_dir / CARD):
            write_card(self.run_dir, card)
        self._epochs = epochs
        if self._is_terminal:
            self._bar = tqdm(
                total=epochs * chars_per_epoch,
                initial=initial_chars,
                unit="char",
                unit_scale=True,
                file=self._console,
                dynamic_ncols=True,
                leave=False,
            )

    def say(self, line: str) -> None:  # noqa: D102
        self._bar.clear()
        text = printable(line) + "\n"
        self.note(line)
        if self._console is not None and not write_in_time(self._console, text):
            self._console = None
            self._bar = tqdm(disable=True)
            self.note("the output is no longer read: all further lines are in this file only")
        self._bar.refresh()

    def note(self, line: str) -> None:  # noqa: D102
        self._write(self._log, printable(line) + "\n")

    def _require_current(self) -> None:
        """Check that no later attempt at this job has claimed the run directory.

        Raises:
            UserError: if one has.
        """
        if is_superseded(self.run_dir):
            raise superseded(self.run_dir)

    def _write(self, file: IO[str], text: str) -> None:
        self._require_current()
        with written(Path(file.name)):
            file.write(text)
            file.flush()

    def advance(self, chars: int) -> None:  # noqa: D102
        self._bar.update(chars)

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:  # noqa: D102
        self._last_perplexity = metrics.perplexity
        self._write(self._metrics, _json_line(metrics._asdict()))
        if self._events:
            with written(self.run_dir / EVENTS):
                self._events.epoch(metrics.epoch, _shown(metrics))
        if show:
            self.say(f"epoch {metrics.epoch:>{len(str(self._epochs))}}/{self._epochs} | {self._numbers(metrics)}")

    def report(self, report: StepsReport) -> None:  # noqa: D102
        self._write(self._metrics, _json_line(report._asdict()))
        if self._events:
            with written(self.run_dir / EVENTS):
                self._events.report(report.step, _shown(report))
        epoch = f"{report.epoch:>{len(str(self._epochs)) + 3}.2f}/{self._epochs}"
        self.say(f"epoch {epoch} | step {report.step:7,} | {self._numbers(report)}")

    def _numbers(self, line: Union[EpochMetrics, StepsReport]) -> str:
        """Return what the console lines of epochs and reports have in common."""
        left = line.seconds / line.epoch * (self._epochs - line.epoch)
        valid, shares = line.valid_perplexity, self._shares.describe()
        self._shares = StepShares()
        return (
            f"perplexity {line.perplexity:7.2f} | {line.bits_per_char:6.3f} bits/char"
            f"{'' if valid is None else f' | validation {valid:7.2f}'}"
            f" | grad norm {line.grad_norm:6.2f} | {line.chars_per_sec:9,.0f} chars/s"
            f" | {tqdm.format_interval(left)} left{' | ' if shares else ''}{shares}"
        )

    def times(self, epoch: int, rows: List[Dict[str, Any]]) -> None:  # noqa: D102
        self._require_current()
        path = self.run_dir / TIMES
        with written(path), path.open("a", encoding="utf-8") as file:
            file.writelines(_json_line({"epoch": epoch, **row}) for row in rows)
        self._shares.add(rows)

    def sample(self, epoch: int, prefix: str, text: str) -> None:  # noqa: D102
        self._write(self._samples, _json_line({"epoch": epoch, "prefix": prefix, "text": text}))
        if self._events:
            with written(self.run_dir / EVENTS):
                self._events.sample(epoch, prefix, text)
        self.say(f" - {text}")

    def sync(self) -> None:  # noqa: D102
        for file in (self._metrics, self._samples):
            with written(Path(file.name)):
                sync(file.fileno())

    def finish(self) -> None:  # noqa: D102
        self._bar.close()
        if self._events:
            with written(self.run_dir / EVENTS):
                self._events.close()
        with written(self.run_dir / "perplexity.png"):
            draw_perplexity(read_metrics(self.run_dir / METRICS), self.run_dir / "perplexity.png")
        self.say(f"everything is in {self.run_dir}")
        for file in (self._log, self._metrics, self._samples, self._lock):
            file.close()

    def last_perplexity(self) -> float:  # noqa: D102
        return self._last_perplexity


def _shown(line: Union[EpochMetrics, StepsReport]) -> Dict[str, float]:
    """Return the numbers of a line for TensorBoard."""
    return {name: value for name, value in line._asdict().items() if value is not None and name in SHOWN}


def _json_line(record: Dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def existing_files(run_dir: Path, overwrite: bool) -> List[Path]:
    """Return the files of an existing run in `run_dir`, for deletion.

    Raises:
        UserError: before any file is deleted, if there are files but `overwrite` is false, or a file type is wrong.
    """
    known = [run_dir / name for name in RUN_FILES]
    patterns = (f"{CHECKPOINTS}/*.safetensors*", f"{ERRORS}/*.json", f"{EVENTS}/**/events.*")
    known += [path for pattern in patterns for path in run_dir.glob(pattern)]
    existing = [path for path in known if os.path.lexists(path)]
    if existing and not overwrite:
        raise UserError(
            f"--run-dir {run_dir}: already holds a run; use another directory, --resume to continue the run, or "
            "--overwrite to replace it",
            ExitStatus.CANNOT_CREATE,
        )
    for path in existing:
        if path.is_dir():
            raise cannot_write(run_dir, f"{path.name} in it is a folder")
    for name in FOLDERS:
        if os.path.lexists(run_dir / name) and not (run_dir / name).is_dir():
            raise cannot_write(run_dir, f"{name} in it is not a folder")
    return existing


def _remove_partials(run_dir: Path) -> None:
    """Remove what killed processes were writing; of other files than a run's, which a user may keep there, none."""
    remove_partials(run_dir / CHECKPOINTS, "*.safetensors*")
    remove_partials(run_dir / ERRORS, "*.json.*")
    for name in (*RUN_FILES, STOP):
        remove_partials(run_dir, f"{name}.*")
