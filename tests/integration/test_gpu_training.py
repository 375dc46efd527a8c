"""Whole jobs with the model for GPUs, on a GPU or with kernels compiled for the host, against jobs on the CPU."""

import json
from pathlib import Path
from typing import List, Sequence

import numpy as np
import pytest

from tests.support.cuda_device import HAS_GPU
from tests.support.launchers import ENVIRONMENT
from tests.support.programs import ROOT, TRAIN, run

pytestmark = [pytest.mark.slow, pytest.mark.kernels]

ON_CPU = (*TRAIN, "--device=cpu")
ON_GPU = (*TRAIN, "--device=gpu") if HAS_GPU else ("python", str(ROOT / "tests" / "support" / "host_gpu_train.py"))
SETTINGS = (
    "--hidden-size=32", "--layers=2", "--global-batch-size=5", "--seq-len=6", "--max-chars=300", "--epochs=3",
    "--valid-fraction=0.2", "--log-every=3", "--sample-length=10", "--learning-rate=0.5", "--reference-batch-size=8",
)  # fmt: skip
MPIRUN, HOROVODRUN = ("mpirun", "-np", "2"), ("horovodrun", "--gloo", "-np", "2")


def train(program: Sequence[str], run_dir: Path, *flags: str, launcher: Sequence[str] = ()) -> str:
    done = run([*launcher, *program, *SETTINGS, f"--run-dir={run_dir}", *flags], env=ENVIRONMENT, timeout=200)
    assert done.returncode == 0, done.stderr
    return done.stdout


def curve(run_dir: Path) -> List[List[float]]:
    rows = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    return [[row["perplexity"], row["valid_perplexity"], row["grad_norm"]] for row in rows]


@pytest.fixture(scope="module")
def on_cpu(song_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a run of one worker on the CPU."""
    run_dir = tmp_path_factory.mktemp("cpu") / "run"
    train(ON_CPU, run_dir, f"--corpus={song_file}")
    return run_dir


@pytest.mark.parametrize(
    ("launcher", "flags"),
    [
        ((), ["--recurrence=loop"]),
        ((), ["--recurrence=persistent"]),
        (MPIRUN, ["--recurrence=persistent"]),
        (HOROVODRUN, []),
    ],
)
def test_run_is_that_of_a_cpu(on_cpu: Path, song_file: Path, tmp_path: Path, launcher, flags):
    out = train(ON_GPU, tmp_path / "run", f"--corpus={song_file}", *flags, launcher=launcher)
    np.testing.assert_allclose(curve(tmp_path / "run"), curve(on_cpu), rtol=1e-4)
    assert (tmp_path / "run/samples.jsonl").read_text() == (on_cpu / "samples.jsonl").read_text()
    assert f" with the {flags[0].partition('=')[2] if flags else 'loop'} recurrence), " in out


def test_gradients_in_half_precision_are_those_of_a_cpu(song_file: Path, tmp_path: Path):
    flags = [f"--corpus={song_file}", "--wire-dtype=float16"]
    for name, program in (("cpu", ON_CPU), ("gpu", ON_GPU)):
        train(program, tmp_path / name, *flags, launcher=MPIRUN)
    np.testing.assert_allclose(curve(tmp_path / "gpu"), curve(tmp_path / "cpu"), rtol=1e-4)


@pytest.mark.parametrize(("first", "second"), [(ON_CPU, ON_GPU), (ON_GPU, ON_CPU)], ids=["to_gpu", "to_cpu"])
def test_run_resumes_on_the_other_device(on_cpu: Path, song_file: Path, tmp_path: Path, first, second):
    run_dir = tmp_path / "run"
    train(first, run_dir, f"--corpus={song_file}", "--epochs=1")
    resumed = run([*second, f"--run-dir={run_dir}", "--resume", "--epochs=3"], env=ENVIRONMENT)
    assert resumed.returncode == 0, resumed.stderr
    assert "AVX-512" in resumed.stdout
    assert "with the loop recurrence" in resumed.stdout
    assert "the trajectory is the same up to floating-point rounding" in resumed.stdout
    np.testing.assert_allclose(curve(run_dir), curve(on_cpu), rtol=1e-4)
