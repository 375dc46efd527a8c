"""Compare training on a large prepared corpus with training on the packaged songs, which it repeats."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np

from lstm_dist.bench.case import Case
from lstm_dist.bench.prepare import write_songs
from lstm_dist.bench.table import markdown
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.data.corpus import PACKAGED
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.checkpoint_dir import CheckpointDir

JOBS = ROOT / "jobs"
SAMPLINGS = ("consecutive", "random")


class RunTiming(NamedTuple):
    """Measurements of one training run.

    Attributes:
        startup_seconds: from the start of the command to the checkpoint before the first step.
        steps_per_sec: steps per second of training time.
    """

    startup_seconds: float
    steps_per_sec: float


class RunPair(NamedTuple):
    """Two runs, one directly after the other."""

    songs: RunTiming
    large: RunTiming


def measure(
    case: Case, megabytes: int, turns: int, seconds: int, advance: Callable[[], object]
) -> Dict[str, List[RunPair]]:
    """Return `turns` pairs of runs of `seconds` seconds for each sampling.

    Args:
        case: the sizes of model and batch.
        megabytes: size of the large corpus.
        turns: pairs of runs for each sampling; the order within a pair alternates.
        seconds: duration of each run.
        advance: called after every run.
    """
    pairs: Dict[str, List[RunPair]] = {sampling: [] for sampling in SAMPLINGS}
    with tempfile.TemporaryDirectory() as directory:
        folder = Path(directory)
        write_songs(folder / "text.txt", megabytes * 10**6)
        _run_program("prepare.py", [str(folder / "text.txt"), f"--out={folder / 'large'}"], ExitStatus.FINISHED)
        for turn in range(turns):
            for sampling in SAMPLINGS:
                corpora = {"songs": PACKAGED, "large": folder / "large"}
                runs = {}
                for name in sorted(corpora, reverse=turn % 2 == 0):
                    runs[name] = train(corpora[name], folder / f"{sampling}-{name}-{turn}", sampling, case, seconds)
                    advance()
                pairs[sampling].append(RunPair(**runs))
    return pairs


def train(corpus: Path, run_dir: Path, sampling: str, case: Case, seconds: int) -> RunTiming:
    """Train with a time limit of `seconds` seconds, and return the measurements of the run."""
    arguments = [
        f"--corpus={corpus}", "--max-chars=0", f"--run-dir={run_dir}", f"--sampling={sampling}",
        f"--time-limit={seconds}s", "--epochs=1000000", "--log-every=1000000", "--checkpoint-every=1h",
        f"--hidden-size={case.hidden_size}", f"--global-batch-size={case.streams}", f"--seq-len={case.seq_len}",
    ]  # fmt: skip
    started = time.time()
    _run_program("train.py", arguments, ExitStatus.STOPPED)
    last, *_, first = CheckpointDir.of_run(run_dir).paths()
    progress = load_checkpoint(last, "bench").facts["progress"]
    return RunTiming(first.stat().st_mtime - started, progress["step"] / progress["seconds"])


def _run_program(program: str, arguments: Sequence[str], expected: ExitStatus) -> None:
    """Run a program of this project, and check its exit status."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, str(JOBS / program), *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != expected:
        last = (done.stderr.strip().splitlines() or ["no error message"])[-1]
        raise UserError(f"jobs/{program} exited with status {done.returncode}: {last}", ExitStatus.INTERNAL)


def format_table(measured: Dict[str, List[RunPair]]) -> str:
    """Format one row per sampling, with median, minimum and maximum."""
    rows = []
    for sampling, pairs in measured.items():
        ratios = [p.large.steps_per_sec / p.songs.steps_per_sec for p in pairs]
        delays = [p.large.startup_seconds - p.songs.startup_seconds for p in pairs]
        rows.append(
            {
                "sampling": sampling,
                "steps/s, songs": f"{np.median([p.songs.steps_per_sec for p in pairs]):.1f}",
                "steps/s, large": f"{np.median([p.large.steps_per_sec for p in pairs]):.1f}",
                "large / songs": f"{np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                "startup delay, s": f"{np.median(delays):.2f} ({min(delays):.2f} to {max(delays):.2f})",
            }
        )
    return markdown(rows)
