"""The memory that it takes to prepare a gigabyte of text, and to train on it compared with a small corpus."""

import json
from pathlib import Path
from typing import List

import pytest

from lstm_dist.data.corpus import PACKAGED
from tests.support.launchers import ENVIRONMENT, mpirun
from tests.support.programs import ROOT, TRAIN, run

pytestmark = pytest.mark.slow
GIGABYTE, MEGABYTE = 10**9, 10**6
PREPARE = str(ROOT / "jobs" / "prepare.py")
# Runs a program and finally prints its peak memory in bytes.
WATCHED = """
import os, resource, sys
pid = os.spawnv(os.P_NOWAIT, sys.executable, [sys.executable, *sys.argv[1:]])
_, status, usage = os.wait4(pid, 0)
print(f"peak {usage.ru_maxrss * 1024}", flush=True)
sys.exit(os.waitstatus_to_exitcode(status) if hasattr(os, "waitstatus_to_exitcode") else status >> 8)
"""


@pytest.fixture(scope="module")
def big(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a gigabyte of the packaged songs, prepared by two ranks, and the output of that program."""
    folder, songs = tmp_path_factory.mktemp("big"), PACKAGED.read_bytes()
    with (folder / "text.txt").open("wb") as file:
        for _ in range(GIGABYTE // len(songs) + 1):
            file.write(songs)
    command = [*mpirun(2), "python", "-c", WATCHED, PREPARE, str(folder / "text.txt"), f"--out={folder}/corpus"]
    done = run(command, env=ENVIRONMENT, timeout=300)
    assert done.returncode == 0, done.stderr
    (folder / "text.txt").unlink()
    (folder / "said").write_text(done.stdout)
    return folder


def test_preparing_a_gigabyte_takes_under_300_megabytes_per_rank(big: Path):
    peaks = [int(line.split()[1]) for line in (big / "said").read_text().splitlines() if line.startswith("peak ")]
    assert len(peaks) == 2
    assert max(peaks) < 300 * MEGABYTE, peaks


def peak_of_training(corpus: Path, run_dir: Path, steps: int, *flags: str) -> int:
    """Train until the time limit among the flags, for at least `steps` steps, and return the peak memory in bytes."""
    words = [*TRAIN[1:], f"--corpus={corpus}", f"--run-dir={run_dir}", "--max-chars=0", "--hidden-size=32"]
    words += ["--global-batch-size=32", "--epochs=10000", "--log-every=10000", "--checkpoint-every=1h", *flags]
    done = run(["python", "-c", WATCHED, *words], env=ENVIRONMENT)
    status = json.loads((run_dir / "status.json").read_text())
    assert (done.returncode, status["state"]) == (75, "stopped"), done.stdout + done.stderr
    assert status["step"] >= steps
    (peak,) = [int(line.split()[1]) for line in done.stdout.splitlines() if line.startswith("peak ")]
    return peak


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_training_on_a_gigabyte_takes_little_more_memory(big: Path, tmp_path: Path, sampling: str):
    flags: List[str] = [f"--sampling={sampling}", "--time-limit=20s"]
    small = peak_of_training(PACKAGED, tmp_path / "small", 100, *flags)
    large = peak_of_training(big / "corpus", tmp_path / "large", 100, *flags)
    # Random sampling stores the order of an epoch's windows, 4 bytes each.
    assert large - small < (5 if sampling == "consecutive" else 50) * MEGABYTE, (small, large)
