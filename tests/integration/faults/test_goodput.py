"""The goodput of a run that was killed and resumed agrees with a clock outside of it."""

import json
import math
import time
from pathlib import Path
from typing import List, NamedTuple

import pytest

from lstm_dist.cluster.launch_env import BEGAN
from lstm_dist.run.goodput import PARTS
from lstm_dist.run.status import read_status
from lstm_dist.run.timeline import START, read
from tests.support.launchers import ENVIRONMENT, LAUNCHERS
from tests.support.programs import ROOT, faulty, newest, run

pytestmark = pytest.mark.slow

# Steps of some milliseconds; nothing but steps and checkpoints, so that an outside clock can tell what time steps take.
FLAGS = ("--hidden-size=64", "--global-batch-size=8", "--seq-len=20", "--max-chars=3000", "--epochs=100000")
FLAGS += ("--log-every=100000", "--checkpoint-every=2s")


class Seen(NamedTuple):
    """What is seen of an attempt from outside.

    Attributes:
        began, ended: times of its command, and of its fault.
        steps: times at which rank 0 began a step.
        first: the step that it continued after.
    """

    began: float
    ended: float
    steps: List[float]
    first: int

    def seconds_until(self, step: int) -> float:
        """Return the seconds from the beginning of the first step to that of the one after `step`, or of the last."""
        return self.steps[min(step - self.first, len(self.steps) - 1)] - self.steps[0]


def attempt(name: str, size: int, kind: str, step: int, folder: Path, *flags: str, status: int) -> Seen:
    """Run an attempt with a fault on rank 0 after a number of steps."""
    fault, steps, run_dir = folder / f"fault-{name}", folder / f"steps-{name}", folder / "run"
    first = int(newest(run_dir).stem.split("-")[1]) if run_dir.exists() else 0
    began = time.time()
    env = {**ENVIRONMENT, "LSTM_DIST_TEST_STEPS": str(steps), BEGAN: str(began)}
    argv = [*LAUNCHERS[name](size), *faulty(kind, 0, step, fault), f"--run-dir={run_dir}", *flags]
    done = run(argv, env=env, cwd=ROOT)
    assert done.returncode == status or (status < 0 and done.returncode != 0), done.stdout + done.stderr
    return Seen(began, float(fault.read_text()), [float(line) for line in steps.read_text().split()], first)


def test_goodput_of_a_killed_and_resumed_run_agrees_with_an_outside_clock(song_file: Path, tmp_path: Path):
    """Of two attempts with two and three workers, rank 0 of the first is killed, and the second is asked to stop."""
    killed = attempt("horovodrun-gloo", 2, "kill", 400, tmp_path, f"--corpus={song_file}", *FLAGS, status=-1)
    stopped = attempt("mpirun", 3, "signal", 200, tmp_path, "--resume", status=75)
    run_dir = tmp_path / "run"
    status = read_status(run_dir)
    found, last = status["goodput"], status["step"]
    assert (status["state"], found["attempts"]) == ("stopped", 2)
    assert json.loads((run_dir / "run.json").read_text())["goodput"] == found
    assert [event.facts["workers"] for event in read(run_dir) if event.kind == START] == [2, 3]

    assert set(found["parts"]) == set(PARTS)
    assert round(math.fsum(found["parts"].values()), 3) == found["seconds"]
    wall = (run_dir / "status.json").stat().st_mtime - killed.began
    assert found["seconds"] == pytest.approx(wall, rel=0.02)
    counted = killed.seconds_until(stopped.first) + stopped.seconds_until(last)
    commits = found["parts"]["checkpoints"]  # between the steps, so that the clock outside counts them, too
    assert found["fraction"] + commits / wall == pytest.approx(counted / wall, abs=0.02)
    between = stopped.began - killed.ended
    assert found["parts"]["between"] == pytest.approx(between, abs=0.02 * wall)
    # Rank 1 reports the failure, and has not finished the last two steps that rank 0 began.
    lost = len(killed.steps) - stopped.first
    assert lost - 2 <= found["steps_lost"] <= lost
    assert (found["parts"]["lost"] > 0) == (found["steps_lost"] > 0)
    assert found["parts"]["lost"] < 0.02 * wall + killed.steps[-1] - killed.steps[stopped.first - 1]
