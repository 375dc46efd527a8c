"""What a run leaves and what a person sees: one human line, one JSON line, the run card. Silent unless root."""

import itertools
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional

from tqdm import tqdm

from lstm_dist.errors import UserError, printable

# What a run directory may hold, besides checkpoints/*.safetensors; --overwrite deletes these and nothing else.
RUN_FILES = ("config.json", "run.json", "metrics.jsonl", "samples.jsonl", "log.txt", "perplexity.png")


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
    """

    epoch: int
    step: int
    loss: float
    perplexity: float
    bits_per_char: float
    grad_norm: float
    chars_per_sec: float
    seconds: float


class RunLog:
    """The log of every rank but the root: silent."""

    def start(self, config: Dict[str, Any], card: Dict[str, Any], epochs: int, chars_per_epoch: int) -> None:
        """Write config.json and run.json and begin to show progress."""

    def say(self, line: str) -> None:
        """Show one line, and keep it in log.txt."""

    def advance(self, chars: int) -> None:
        """Move the progress bar."""

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:
        """Write an epoch's JSON line and, where `show`, its human line."""

    def sample(self, epoch: int, prefix: str, text: str) -> None:
        """Show and keep a sample."""

    def finish(self) -> None:
        """Draw perplexity.png and say where everything is."""


class RootLog(RunLog):
    """The root's log: files in `run_dir`, lines and a progress bar for the person who watches."""

    def __init__(self, run_dir: Path, overwrite: bool) -> None:
        """Take `run_dir`.

        Raises:
            UserError: naming --run-dir, when it holds a run and `overwrite` is false, or cannot be written.
        """
        self.run_dir = run_dir
        try:
            run_dir.mkdir(parents=True, exist_ok=True)
            known = [*(run_dir / name for name in RUN_FILES), *(run_dir / "checkpoints").glob("*.safetensors*")]
            held = [path for path in known if os.path.lexists(path)]
            if held and not overwrite:
                raise UserError(f"--run-dir {run_dir}: holds a run already; give another, or --overwrite to replace it")
            # Whatever can fail comes first: what is refused has not lost half of the old run.
            (run_dir / "checkpoints").mkdir(exist_ok=True)
            for path in held:
                if path.is_dir():
                    raise UserError(f"--run-dir {run_dir}: cannot be written ({path.name} in it is a folder)")
            for path in held:
                path.unlink()
            self._log = (run_dir / "log.txt").open("w", encoding="utf-8")
            self._metrics = (run_dir / "metrics.jsonl").open("w", encoding="utf-8")
            self._samples = (run_dir / "samples.jsonl").open("w", encoding="utf-8")
        except OSError as error:
            raise UserError(f"--run-dir {run_dir}: cannot be written ({error.strerror})") from None
        self._console, interactive = _console()
        self._bar: Any = tqdm(disable=True)
        self._interactive = interactive
        self._history: List[EpochMetrics] = []
        self._epochs = 0

    def start(self, config: Dict[str, Any], card: Dict[str, Any], epochs: int, chars_per_epoch: int) -> None:  # noqa: D102
        for name, facts in (("config.json", config), ("run.json", card)):
            text = json.dumps(facts, indent=2, ensure_ascii=False) + "\n"
            # A path that is not UTF-8 comes as lone surrogates, and leaves as their JSON escapes.
            (self.run_dir / name).write_text(text, encoding="utf-8", errors="backslashreplace")
        self._epochs = epochs
        if self._interactive:
            self._bar = tqdm(
                total=epochs * chars_per_epoch,
                unit="char",
                unit_scale=True,
                file=self._console,
                dynamic_ncols=True,
                leave=False,
            )

    def say(self, line: str) -> None:  # noqa: D102
        self._bar.clear()
        for stream in (self._console, self._log):
            stream.write(printable(line) + "\n")
            stream.flush()
        self._bar.refresh()

    def advance(self, chars: int) -> None:  # noqa: D102
        self._bar.update(chars)

    def epoch(self, metrics: EpochMetrics, show: bool) -> None:  # noqa: D102
        self._history.append(metrics)
        _append(self._metrics, metrics._asdict())
        if show:
            left = metrics.seconds / metrics.epoch * (self._epochs - metrics.epoch)
            self.say(
                f"epoch {metrics.epoch:>{len(str(self._epochs))}}/{self._epochs}"
                f" | perplexity {metrics.perplexity:7.2f} | {metrics.bits_per_char:6.3f} bits/char"
                f" | grad norm {metrics.grad_norm:6.2f} | {metrics.chars_per_sec:9,.0f} chars/s"
                f" | {tqdm.format_interval(left)} left"
            )

    def sample(self, epoch: int, prefix: str, text: str) -> None:  # noqa: D102
        _append(self._samples, {"epoch": epoch, "prefix": prefix, "text": text})
        self.say(f" - {text}")

    def finish(self) -> None:  # noqa: D102
        self._bar.close()
        draw_perplexity(self._history, self.run_dir / "perplexity.png")
        self.say(f"everything is in {self.run_dir}")
        for file in (self._log, self._metrics, self._samples):
            file.close()


def new_run_dir() -> Path:
    """Make a folder under runs/ that is named after the moment; numbered where another run began in the same second.

    Raises:
        UserError: when it cannot be made.
    """
    moment = datetime.now().strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        path = Path("runs") / (moment if number == 1 else f"{moment}-{number}")
        try:
            path.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise UserError(f"{path}: cannot be made ({error.strerror}); give a folder with --run-dir") from None
        break
    return path


def describe_process() -> Dict[str, Any]:
    """The facts of this process for the run card; call it before MPI starts, which does not like forks."""
    packages = ("lstm-dist", "mxnet", "mxnet-cu112", "horovod", "mpi4py", "numpy")
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": os.getcwd(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in packages for version in [_version(name)] if version},
    }


def describe_rank(device: str) -> Dict[str, Any]:
    """The facts of one rank for the run card."""
    return {"host": socket.gethostname(), "device": device, "threads": int(os.environ.get("OMP_NUM_THREADS", 0))}


def draw_perplexity(history: List[EpochMetrics], path: Path) -> None:
    """Perplexity against the epoch, on a logarithmic axis."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    axes.plot([m.epoch for m in history], [m.perplexity for m in history], color="#1f5fa8", linewidth=1.8)
    last = history[-1]
    axes.plot(last.epoch, last.perplexity, "o", color="#1f5fa8")
    axes.annotate(f"{last.perplexity:.1f}", (last.epoch, last.perplexity), (6, 4), textcoords="offset points")
    axes.margins(x=0.08)  # room for the last number
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(xlabel="epoch", ylabel="perplexity (log scale)", title="Training perplexity")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _console() -> "tuple[IO[str], bool]":
    """Where the person watches, and whether that is a terminal.

    horovodrun's pipes swallow carriage returns; its caller may name the terminal itself in LSTM_DIST_TERMINAL.
    """
    terminal = os.environ.get("LSTM_DIST_TERMINAL")
    if terminal:
        try:
            # Not O_TRUNC and not as the controlling terminal: it may be a file, and it is the caller's.
            number = os.open(terminal, os.O_WRONLY | os.O_NOCTTY)
        except OSError:
            pass  # another host than the launcher's
        else:
            if os.isatty(number):
                return open(number, "w", encoding="utf-8", errors="backslashreplace"), True
            os.close(number)
    return sys.stdout, sys.stdout.isatty()


def _append(file: IO[str], record: Dict[str, Any]) -> None:
    file.write(json.dumps(record, ensure_ascii=False) + "\n")
    file.flush()


def _git_commit() -> Optional[str]:
    root = Path(__file__).resolve().parent.parent
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
