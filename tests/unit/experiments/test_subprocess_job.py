"""The folder of a job: it is emptied when no earlier job writes to it any more; and where the job ran."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments import subprocess_job
from lstm_dist.experiments.subprocess_job import OUTPUT, create_folder, describe_placement, execute
from tests.support.programs import ROOT

# A job that survives its experiment for 1.5 s, as workers do that are asked to stop, and then writes to its folder.
ORPHAN = """
import sys
from pathlib import Path
from lstm_dist.experiments.subprocess_job import create_folder, execute
folder = Path(sys.argv[1])
create_folder(folder)
execute(["bash", "-c", f"trap '' TERM; touch {folder}/started; sleep 1.5; touch {folder}/late"], folder, {})
"""


def interrupted_experiment(folder: Path) -> None:
    """Start an experiment, and kill it as soon as its job runs."""
    experiment = subprocess.Popen([sys.executable, "-c", ORPHAN, str(folder)], cwd=ROOT)
    deadline = time.monotonic() + 60
    while not (folder / "started").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    experiment.kill()
    experiment.wait(timeout=10)


@pytest.mark.slow
def test_folder_is_emptied_after_the_job_of_a_killed_experiment_has_ended(tmp_path: Path):
    folder = tmp_path / "job"
    interrupted_experiment(folder)
    create_folder(folder)
    time.sleep(2)
    assert list(folder.iterdir()) == []


@pytest.mark.slow
def test_job_that_does_not_end_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    folder = tmp_path / "job"
    interrupted_experiment(folder)
    monkeypatch.setattr(subprocess_job, "_STOP_TIMEOUT", 0.3)
    with pytest.raises(UserError, match=f"^--out: {folder}/output.txt is in use by a job of an interrupted ") as caught:
        create_folder(folder)
    assert caught.value.status == ExitStatus.CANNOT_CREATE
    assert (folder / "started").exists()


def test_outcome_of_a_job_has_its_status_and_last_error(tmp_path: Path):
    create_folder(tmp_path / "job")
    script = "echo well; echo 'error: --corpus x: no such file' >&2; echo bye; exit 66"
    outcome = execute(["bash", "-c", script], tmp_path / "job", dict(os.environ))
    assert outcome[:2] == (66, "error: --corpus x: no such file")
    assert (tmp_path / "job" / OUTPUT).read_text().startswith("well\n")
    create_folder(tmp_path / "job")
    assert execute(["true"], tmp_path / "job", dict(os.environ))[:2] == (0, "")


def test_placement_of_a_job_is_that_of_its_ranks(tmp_path: Path):
    card, hosts = tmp_path / "run.json", ("a", "a", "b")
    ranks = [
        {"host": host, "cores": [number], "threads": 1, "gpu": "", "processor": "a chip", "device": "cpu(0)"}
        for number, host in enumerate(hosts)
    ]
    card.write_text(json.dumps({"ranks": ranks, "versions": {}, "python": "3.11"}))
    found = describe_placement(card)
    assert (found["hosts"], found["workers_per_host"], found["cores"], found["oversubscribed"]) == (2, 2, 3, False)
    assert describe_placement(tmp_path / "none")["workers_per_host"] == 0
