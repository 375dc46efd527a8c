"""Run logging on the root: console lines, JSON lines and a plot. The log of every other rank is silent."""

import contextlib
import errno
import json
import math
import os
import select
import sys
from pathlib import Path
from typing import IO, Any, Dict, Iterator, List, NamedTuple, Optional

from tqdm import tqdm

from lstm_dist.errors import ExitStatus, UserError, printable
from lstm_dist.files import cannot_write, claim
from lstm_dist.run import status
from lstm_dist.run.status import ERRORS, STATUS
from lstm_dist.run.tensorboard import Events, require_writer

# Files of a run directory outside its subfolders; --overwrite deletes these and the known files in the subfolders only.
TIMES = "times.jsonl"
RUN_FILES = ("config.json", "run.json", STATUS, "metrics.jsonl", TIMES, "samples.jsonl", "log.txt", "perplexity.png")
EVENTS = "events"  # folder of TensorBoard event files, if enabled
SHOWN = ("perplexity", "valid_perplexity", "bits_per_char", "grad_norm", "chars_per_sec")  # in TensorBoard
FOLDERS = ("checkpoints", ERRORS)
_READER_PATIENCE = 5.0  # seconds to wait for the reader of the output
_PIPE_BUF = 4096  # bytes that a write to a ready pipe accepts without blocking


class EpochMetrics(NamedTuple):
    """One line of metrics.jsonl.

    Attributes:
        epoch: counted from 1.
        step: optimizer updates so far.
        loss: mean over all characters of all workers in this epoch, nats per character.
        perplexity: exp(loss).
        bits_per_char: loss / ln 2.
        grad_norm: mean over the epoch's steps of the averaged gradient's norm before clipping.
        chars_per_sec: of the whole job, in this epoch.
        seconds: since training started, samples included.
        valid_perplexity: exp of the validation loss after this epoch; None if not evaluated.
    """

    epoch: int
    step: int
    loss: float
    perplexity: float
    bits_per_char: float
    grad_norm: float
    chars_per_sec: float
    seconds: float
    valid_perplexity: Optional[float] = None


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
        """Write an epoch's JSON line and, if `show`, its console line."""

    def times(self, epoch: int, rows: List[Dict[str, Any]]) -> None:
        """Write the times of an epoch's profiled steps, one line per step and worker."""

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """Show and write a sample."""

    def finish(self) -> None:
        """Draw perplexity.png and show the run directory."""


@contextlib.contextmanager
def _written(path: Path) -> Iterator[None]:
    """Wrap code that writes `path`.

    Raises:
        UserError: if writing fails; the run ends, because its results would be lost.
    """
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); make room, and go on with --resume", ExitStatus.CANNOT_WRITE
        ) from None


class RootLog(RunLog):
    """The root's log: files in `run_dir`, and console lines with a progress bar."""

    def __init__(
        self,
        run_dir: Path,
        overwrite: bool = False,
        resumed_epochs: Optional[int] = None,
        lock: Optional[IO[str]] = None,
        with_events: bool = False,
    ) -> None:
        """Claim `run_dir` for this job and open its log files.

        Args:
            run_dir: the folder.
            overwrite: delete the run that it holds.
            resumed_epochs: resume the run that it holds after this number of epochs; records of later epochs are
                discarded.
            lock: from `claim`, if it was already called.
            with_events: also write event files for TensorBoard.

        Raises:
            UserError: naming --run-dir, if it holds a run that is neither resumed nor overwritten, or cannot be
                written.
        """
        if with_events:
            require_writer()  # before any file is deleted
        self.run_dir = run_dir
        self._history: List[EpochMetrics] = []
        held = [] if resumed_epochs is not None else _held(run_dir, overwrite)
        self._lock = lock or claim(run_dir)
        try:
            for name in FOLDERS:
                (run_dir / name).mkdir(exist_ok=True, mode=0o700)
            for path in held:
                path.unlink()
            if resumed_epochs is not None:
                self._history = _go_on(run_dir, resumed_epochs)
            mode = "w" if resumed_epochs is None else "a"
            self._log = (run_dir / "log.txt").open(mode, encoding="utf-8")
            self._metrics = (run_dir / "metrics.jsonl").open(mode, encoding="utf-8")
            self._samples = (run_dir / "samples.jsonl").open(mode, encoding="utf-8")
            self._events = Events(run_dir / EVENTS, (resumed_epochs or 0) + 1) if with_events else None
        except OSError as error:
            raise cannot_write(run_dir, str(error.strerror)) from None
        console, interactive = _console()
        self._console: Optional[IO[str]] = console
        self._bar: Any = tqdm(disable=True)
        self._interactive = interactive
        self._epochs = 0

    def start(  # noqa: D102
        self, config: Dict[str, Any], card: Dict[str, Any], epochs: int, chars_per_epoch: int, initial_chars: int = 0
    ) -> None:
        for name, facts in (("config.json", config), ("run.json", card)):
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            with _written(self.run_dir / name):
                # A non-UTF-8 path contains lone surrogates, which are written as JSON escapes.
                (self.run_dir / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        self._epochs = epochs
        if self._interactive:
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
        if self._console is not None and not _write_in_time(self._console, text):
            self._console = None
            self._bar = tqdm(disable=True)
            self.note("nobody reads the output any more: this file goes on alone")
        self._bar.refresh()

    def note(self, line: str) -> None:  # noqa: D102
        self._write(self._log, printable(line) + "\n")

    def _write(self, file: IO[str], text: str) -> None:
        with _written(Path(file.name)):
            file.write(text)
            file.flush()

    def advance(self, chars: int) -> None:  # noqa: D102
        self._bar.update(chars)

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:  # noqa: D102
        self._history.append(metrics)
        self._write(self._metrics, _json_line(metrics._asdict()))
        if self._events:
            numbers = {name: value for name, value in metrics._asdict().items() if value is not None and name in SHOWN}
            with _written(self.run_dir / EVENTS):
                self._events.epoch(metrics.epoch, numbers)
        if show:
            left = metrics.seconds / metrics.epoch * (self._epochs - metrics.epoch)
            valid = metrics.valid_perplexity
            self.say(
                f"epoch {metrics.epoch:>{len(str(self._epochs))}}/{self._epochs}"
                f" | perplexity {metrics.perplexity:7.2f} | {metrics.bits_per_char:6.3f} bits/char"
                f"{'' if valid is None else f' | held out {valid:7.2f}'}"
                f" | grad norm {metrics.grad_norm:6.2f} | {metrics.chars_per_sec:9,.0f} chars/s"
                f" | {tqdm.format_interval(left)} left"
            )

    def times(self, epoch: int, rows: List[Dict[str, Any]]) -> None:  # noqa: D102
        path = self.run_dir / TIMES
        with _written(path), path.open("a", encoding="utf-8") as file:
            file.writelines(_json_line({"epoch": epoch, **row}) for row in rows)

    def sample(self, epoch: int, prefix: str, text: str) -> None:  # noqa: D102
        self._write(self._samples, _json_line({"epoch": epoch, "prefix": prefix, "text": text}))
        if self._events:
            with _written(self.run_dir / EVENTS):
                self._events.sample(epoch, prefix, text)
        self.say(f" - {text}")

    def sync(self) -> None:  # noqa: D102
        for file in (self._metrics, self._samples):
            with _written(Path(file.name)):
                os.fsync(file.fileno())

    def finish(self) -> None:  # noqa: D102
        self._bar.close()
        if self._events:
            with _written(self.run_dir / EVENTS):
                self._events.close()
        with _written(self.run_dir / "perplexity.png"):
            draw_perplexity(self._history, self.run_dir / "perplexity.png")
        self.say(f"everything is in {self.run_dir}")
        for file in (self._log, self._metrics, self._samples, self._lock):
            file.close()


def draw_perplexity(history: List[EpochMetrics], path: Path) -> None:
    """Plot perplexity against the epoch on a logarithmic axis; do nothing without an epoch."""
    if not history:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    trained = [(m.epoch, m.perplexity) for m in history]
    held_out = [(m.epoch, m.valid_perplexity) for m in history if m.valid_perplexity is not None]
    for points, name, colour in ((trained, "training", "#1f5fa8"), (held_out, "held out", "#b8541a")):
        if points:
            axes.plot(*zip(*points), color=colour, linewidth=1.8, label=name)
            axes.plot(*points[-1], "o", color=colour)
            axes.annotate(f"{points[-1][1]:.1f}", points[-1], (6, 4), textcoords="offset points")
    if held_out:
        axes.legend(frameon=False)
    axes.margins(x=0.08)  # room for the last number
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(xlabel="epoch", ylabel="perplexity (log scale)", title="Perplexity")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _console() -> "tuple[IO[str], bool]":
    """Return the output stream, and whether it is a terminal.

    horovodrun's pipes drop carriage returns, so its caller may name the terminal in LSTM_DIST_TERMINAL.
    """
    terminal = os.environ.get("LSTM_DIST_TERMINAL")
    if terminal:
        try:
            # Without O_TRUNC, because it may be a file; with O_NOCTTY, because the terminal belongs to the caller.
            number = os.open(terminal, os.O_WRONLY | os.O_NOCTTY)
        except OSError:
            pass  # this host is not the launcher's
        else:
            if os.isatty(number):
                return open(number, "w", encoding="utf-8", errors="backslashreplace"), True
            os.close(number)
    return sys.stdout, sys.stdout.isatty()


def _json_line(record: Dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _held(run_dir: Path, overwrite: bool) -> List[Path]:
    """Return the files of an existing run in `run_dir`, for deletion.

    Raises:
        UserError: before any file is deleted, if there are files but `overwrite` is false, or a file type is wrong.
    """
    known = [run_dir / name for name in RUN_FILES]
    patterns = ("checkpoints/*.safetensors*", f"{ERRORS}/*.json", f"{EVENTS}/events.*")
    known += [path for pattern in patterns for path in run_dir.glob(pattern)]
    held = [path for path in known if os.path.lexists(path)]
    if held and not overwrite:
        raise UserError(
            f"--run-dir {run_dir}: holds a run already; give another, --resume to go on with it, or --overwrite to "
            "replace it",
            ExitStatus.CANNOT_CREATE,
        )
    for path in held:
        if path.is_dir():
            raise cannot_write(run_dir, f"{path.name} in it is a folder")
    for name in FOLDERS:
        if os.path.lexists(run_dir / name) and not (run_dir / name).is_dir():
            raise cannot_write(run_dir, f"{name} in it is not a folder")
    return held


def _go_on(run_dir: Path, epochs: int) -> List[EpochMetrics]:
    """Discard the recorded causes and all records after the first `epochs`; return the remaining metrics."""
    status.clear_failures(run_dir)
    for name in ("metrics.jsonl", "samples.jsonl", TIMES):
        if name != TIMES or (run_dir / TIMES).exists():
            _keep_epochs(run_dir / name, epochs)
    lines = (run_dir / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [EpochMetrics(**json.loads(line)) for line in lines]


def _keep_epochs(path: Path, epochs: int) -> None:
    """Truncate a file of JSON lines after the last line of the first `epochs` epochs."""
    kept = 0
    with path.open("r+b") as file:
        for line in file:
            if not line.endswith(b"\n") or _epoch(line) > epochs:
                break
            kept += len(line)
        file.truncate(kept)


def _epoch(line: bytes) -> float:
    """Return the epoch of a JSON line; infinite if invalid, as the last line may be after a machine crash."""
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, TypeError, KeyError):
        return math.inf


def _write_in_time(stream: IO[str], text: str) -> bool:
    """Write with a timeout, and return whether it succeeded: a launcher that stops reading must not block the job.

    A terminal has no timeout: a user may pause it until the watchdog ends the job, or close it.

    Raises:
        BrokenPipeError: if the reader of a pipe is gone.
        UserError: if the output is a file and the write fails.
    """
    try:
        if stream.isatty():
            stream.write(text)
            stream.flush()
            return True
        data = text.encode()
        for start in range(0, len(data), _PIPE_BUF):
            _, ready, _ = select.select([], [stream.fileno()], [], _READER_PATIENCE)
            if not ready:
                return False
            os.write(stream.fileno(), data[start : start + _PIPE_BUF])
    except OSError as error:
        if error.errno == errno.EIO:  # the terminal was closed; if that concerns the run, it also gets a signal
            return False
        if error.errno == errno.EPIPE:
            raise
        with _written(Path("standard output")):
            raise
    return True
