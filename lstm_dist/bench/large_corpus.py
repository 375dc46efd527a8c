"""Compare training on a large prepared corpus with training on the song that is repeated in it."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np
from tabulate import tabulate

from lstm_dist.bench.case import Case
from lstm_dist.bench.prepare import write_songs
from lstm_dist.data.corpus import PACKAGED
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.checkpoint_dir import CheckpointDir

JOBS = Path(__file__).resolve().parents[2] / "jobs"
SAMPLINGS = ("consecutive", "random")


class Trained(NamedTuple):
    """Measurements of one run.

    Attributes:
        start: seconds from the command to the checkpoint before the first step.
        rate: steps per second.
    """

    start: float
    rate: float


class Pair(NamedTuple):
    """Two consecutive runs."""

    song: Trained
    large: Trained


def measure(
    case: Case, megabytes: int, turns: int, seconds: int, advance: Callable[[], object]
) -> Dict[str, List[Pair]]:
    """Return `turns` pairs of runs of `seconds` seconds by sampling; every other pair starts with the large corpus."""
    found: Dict[str, List[Pair]] = {sampling: [] for sampling in SAMPLINGS}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        write_songs(folder / "text.txt", megabytes * 10**6)
        _run(["prepare.py", str(folder / "text.txt"), f"--out={folder / 'large'}"], 0)
        for turn in range(turns):
            for sampling in SAMPLINGS:
                corpora = {"song": PACKAGED, "large": folder / "large"}
                runs = {}
                for name in sorted(corpora, reverse=turn % 2 == 0):
                    runs[name] = train(corpora[name], folder / f"{sampling}-{name}-{turn}", sampling, case, seconds)
                    advance()
                found[sampling].append(Pair(**runs))
    return found


def train(corpus: Path, run_dir: Path, sampling: str, case: Case, seconds: int) -> Trained:
    """Train until the time limit."""
    words = [
        "train.py", f"--corpus={corpus}", "--max-chars=0", f"--run-dir={run_dir}", f"--sampling={sampling}",
        f"--time-limit={seconds}s", "--epochs=1000000", "--log-every=1000000", "--checkpoint-every=1h",
        f"--hidden-size={case.hidden_size}", f"--global-batch-size={case.streams}", f"--seq-len={case.seq_len}",
    ]  # fmt: skip
    began = time.time()
    _run(words, ExitStatus.STOPPED)
    last, *_, first = CheckpointDir(run_dir / "checkpoints").paths()
    progress = load_checkpoint(last, "bench").facts["progress"]
    return Trained(first.stat().st_mtime - began, progress["step"] / progress["seconds"])


def _run(words: Sequence[str], expected: int) -> None:
    """Run a program of this project, and check its exit status."""
    environment = {"OMP_NUM_THREADS": "1", **os.environ}
    command = [sys.executable, str(JOBS / words[0]), *words[1:]]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != expected:
        last = (done.stderr.strip().splitlines() or ["nothing"])[-1]
        raise UserError(f"{words[0]} has ended with {done.returncode}: {last}", ExitStatus.INTERNAL)


def table(found: Dict[str, List[Pair]]) -> str:
    """Format one row per sampling, with median, minimum and maximum."""
    rows = []
    for sampling, pairs in found.items():
        ratios, later = [p.large.rate / p.song.rate for p in pairs], [p.large.start - p.song.start for p in pairs]
        rows.append(
            {
                "sampling": sampling,
                "steps/s, song": f"{np.median([p.song.rate for p in pairs]):.1f}",
                "large": f"{np.median([p.large.rate for p in pairs]):.1f}",
                "times": f"{np.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})",
                "begins later by, s": f"{np.median(later):.2f} ({min(later):.2f} to {max(later):.2f})",
            }
        )
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="right")
