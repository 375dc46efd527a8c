"""A comparison of a run that is killed and resumed with one that is not interrupted."""

import random
from pathlib import Path
from typing import Sequence

from tests.support.launchers import ENVIRONMENT
from tests.support.outcomes import rows, same_bits
from tests.support.programs import TINY, TRAIN, faulty, newest, run

EPOCHS = 5

FLAGS = (*TINY, f"--epochs={EPOCHS}", "--log-every=3", "--sample-length=20", "--learning-rate=0.5")


def train(launcher: Sequence[str], run_dir: Path, *flags: str, program: Sequence[str] = TRAIN, status: int = 0) -> str:
    """Run a training that must end with `status`, or with any error if it is negative, and return its output."""
    done = run([*launcher, *program, *flags, f"--run-dir={run_dir}"], env=ENVIRONMENT)
    assert done.returncode == status or (status < 0 and done.returncode != 0), done.stdout + done.stderr
    return done.stdout + done.stderr


def kill_and_resume(launcher: Sequence[str], tmp_path: Path, size: int, *more: str, steps: int = 29) -> None:
    """Kill a run of `steps` steps per epoch at a random step, resume it, and compare it with an uninterrupted one."""
    flags = (*FLAGS, *more)
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    train(launcher, whole, *flags)
    step, rank = random.randint(2, EPOCHS * steps - 2), random.randrange(size)  # noqa: S311 - another place every time
    program = faulty("kill", rank, step, tmp_path / "fault")
    train(launcher, broken, *flags, "--checkpoint-every=0.1s", program=program, status=-1)
    at = int(newest(broken).stem.split("-")[1])
    assert at < step
    said = train(launcher, broken, "--resume")
    assert f"resumed after step {at}, in epoch {at // steps + 1}\n" in said
    same_bits(whole, broken)
    assert rows(whole) == rows(broken), f"killed rank {rank} at step {step}"
