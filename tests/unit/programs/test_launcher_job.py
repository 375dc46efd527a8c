"""The launcher of an attempt is asked to stop, by a file if rank 0 is on another host."""

import json
import os
import sys
import time
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.attempt import Attempt
from lstm_dist.programs.launcher_job import LauncherJob
from lstm_dist.run.stop_request import FILE

UNTIL = "import pathlib, sys, time\nwhile not pathlib.Path(sys.argv[1]).exists(): time.sleep(0.02)"


@pytest.fixture
def job(tmp_path: Path) -> LauncherJob:
    """Return an attempt whose rank 0 trains on another host, until there is a file `end`."""
    attempt = Attempt("job", 1)
    status = {"state": "running", "host": "another", "pid": 1, "attempt": str(attempt)}
    (tmp_path / "status.json").write_text(json.dumps(status))
    command = ["sh", "-c", f'exec {sys.executable} -c "$1" "$2"', sys.executable, UNTIL, str(tmp_path / "end")]
    return LauncherJob(command, dict(os.environ), tmp_path, attempt, time.time(), 60.0, is_local=False)


def ignore(_: Path) -> None:
    """Do nothing."""


@pytest.mark.parametrize(
    ("workers", "left"),
    [(ignore, None), (Path.unlink, None), (lambda file: file.write_text("at lunch"), "at lunch")],
    ids=["ignore it", "accept it", "and the user asks, too"],
)
def test_request_that_no_worker_accepts_does_not_stop_the_next_start(
    job: LauncherJob, workers: Callable[[Path], object], left: object
):
    file = job.run_dir / FILE
    job.stop()
    assert file.read_text() == ""
    workers(file)
    (job.run_dir / "end").touch()
    assert job.wait() == 0
    assert (file.read_text() if file.exists() else None) == left


def test_request_of_a_user_is_kept(job: LauncherJob):
    file = job.run_dir / FILE
    file.touch()
    job.stop()
    (job.run_dir / "end").touch()
    assert job.wait() == 0
    assert file.exists()
