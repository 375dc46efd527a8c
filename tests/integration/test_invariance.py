"""The real program at the D2L chapter's sizes: one, two and three workers follow the same trajectory.

`launch/test.sh -n 0 -s` prints the figures that tests/README.md quotes.
"""

import json
from pathlib import Path
from typing import Dict

import numpy as np
import pytest

from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.launchers import ENVIRONMENT, horovodrun, mpirun
from tests.support.programs import TRAIN, newest, run

EPOCHS, STEPS = 2, 34


def train(launcher: list, run_dir: Path, *flags: str, threads: int = 1) -> Path:
    """Train two epochs on the packaged corpus with the D2L chapter's hyperparameters, and return the run directory."""
    quick = [f"--epochs={EPOCHS}", "--sample-length=1", f"--run-dir={run_dir}"]
    done = run([*launcher, *TRAIN, *quick, *flags], timeout=240, env={**ENVIRONMENT, "OMP_NUM_THREADS": str(threads)})
    assert done.returncode == 0, done.stdout + done.stderr
    return run_dir


def metrics(run_dir: Path) -> list:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


def weights(run_dir: Path) -> Dict[str, np.ndarray]:
    return load_checkpoint(newest(run_dir), "").parameters


@pytest.fixture(scope="module", params=["consecutive", "random"])
def alone(request, tmp_path_factory):
    """Return the sampling and the run directory of the reference run with one worker."""
    return request.param, train([], tmp_path_factory.mktemp("alone") / "run", f"--sampling={request.param}")


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [2, 3])
def test_trajectory_is_independent_of_the_number_of_workers(alone, ranks, tmp_path):
    sampling, reference = alone
    other = train(mpirun(ranks), tmp_path / "run", f"--sampling={sampling}")
    ours, theirs = weights(reference), weights(other)
    worst = {name: np.abs(ours[name] - theirs[name]).max() / np.abs(ours[name]).max() for name in ours}
    losses = [[m["loss"] for m in metrics(run_dir)] for run_dir in (reference, other)]
    gap = np.abs(np.subtract(*losses) / losses[0]).max()
    name = max(worst, key=lambda key: worst[key])
    print(
        f"\n{sampling}, {ranks} workers against 1 after {STEPS} steps: largest relative difference of a parameter "
        f"{worst[name]:.1e} ({name}), of an epoch's loss {gap:.1e}"
    )
    assert metrics(other)[-1]["step"] == STEPS
    assert worst[name] < 1e-4
    assert gap < 5e-6


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "threads"),
    [([], 1), ([], 2), (horovodrun("gloo", 2), 1), (mpirun(3), 1)],
    ids=["alone", "alone-2-threads", "gloo-2", "mpi-3"],
)
def test_repeated_run_is_bit_identical(launcher, threads, tmp_path):
    small = ("--hidden-size=32", "--max-chars=5000")
    first, second = (train(launcher, tmp_path / name, *small, threads=threads) for name in ("first", "second"))
    ours, again = weights(first), weights(second)
    assert len(ours) == 14
    for name, value in ours.items():
        np.testing.assert_array_equal(value, again[name], err_msg=name)
    timeless = [{k: v for k, v in m.items() if k not in ("chars_per_sec", "seconds")} for m in metrics(first)]
    timeless_again = [{k: v for k, v in m.items() if k not in ("chars_per_sec", "seconds")} for m in metrics(second)]
    assert timeless == timeless_again
