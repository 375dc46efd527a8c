"""jobs/experiment.py on a small grid continues an interrupted experiment, and reports what its rows contain."""

import csv
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any, List

import pytest

from lstm_dist.programs.experiment import main
from tests.support.launchers import ENVIRONMENT
from tests.support.network import wait_until
from tests.support.programs import ROOT, environment, run
from tests.support.refusals import refusal

EXPERIMENT = ("python", str(ROOT / "jobs" / "experiment.py"))
GRID = (
    "--vary=hidden-size=2,256", "--vary=batches=random/window,random/epoch", "--seeds=1", "--epochs=2",
)  # fmt: skip
# Of the D2L chapter's hyperparameters only the hidden size is expensive here, and it is varied.
TRAINED = ("--", "--global-batch-size=2", "--sample-length=1")


def experiment(*words: str, **how: Any) -> "subprocess.CompletedProcess[str]":
    return run([*EXPERIMENT, *words], env=ENVIRONMENT, timeout=300, **how)


@pytest.mark.slow
def test_interrupted_grid_continues_and_is_reported(tmp_path: Path):
    (tmp_path / "text.txt").write_text("我们走在路上，你们看着我们。" * 30, encoding="utf-8")
    words = [f"--out={tmp_path}/out", *GRID, *TRAINED, f"--corpus={tmp_path}/text.txt"]
    shown = experiment("--dry-run", *words)
    assert shown.returncode == 0, shown.stderr
    names = [line.split("/run")[-2].rsplit("/", 1)[1] for line in shown.stdout.splitlines()]
    distinct = {"document", "hidden-size-2", "batches-random-window", "batches-random-epoch"}
    assert sorted(names) == sorted(f"{name}-s0" for name in distinct)
    assert not (tmp_path / "out").exists()

    command = [sys.executable, EXPERIMENT[1], *words]
    quiet = subprocess.DEVNULL
    begun = subprocess.Popen(command, env=environment(ENVIRONMENT), stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_until(lambda: len(list(tmp_path.glob("out/*/row.json"))) == 2, "two trials", 120)
    finally:
        begun.send_signal(signal.SIGKILL)
        begun.wait(timeout=10)
    kept = {path: path.read_bytes() for path in tmp_path.glob("out/*/row.json")}
    done = experiment(*words)
    assert done.returncode == 0, done.stderr
    assert all(path.read_bytes() == text for path, text in kept.items())
    rows = [json.loads(path.read_bytes()) for path in tmp_path.glob("out/*/row.json")]
    assert sorted(row["name"] for row in rows) == sorted(names)
    assert all(len(row["epochs"]) == 2 and row["state"] == "finished" for row in rows)

    assert re.search(
        r"^--hidden-size: ((2|256) has the best validation|no significant difference in best validation) perplexity",
        done.stdout,
    )
    assert "Random sampling with the state zeroed only at the start of an epoch" in done.stdout
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count("<svg") == 4
    with (tmp_path / "out" / "hidden-size.csv").open(encoding="utf-8") as file:
        (narrow, wide) = csv.DictReader(file)
    assert (narrow["value"], wide["value"]) == ("2", "256")
    (of_narrow,) = [row["epochs"][-1]["perplexity"] for row in rows if row["name"] == "hidden-size-2-s0"]
    assert float(narrow["trained"]) == pytest.approx(of_narrow)
    repeated = experiment(f"--out={tmp_path}/out", "--report")
    assert (repeated.returncode, repeated.stdout) == (0, done.stdout)
    assert "4 runs of 2 epochs" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    again = experiment(*words, "--max-norm=9")
    assert again.returncode == 78
    assert "holds trials whose flags was" in again.stderr


@pytest.mark.slow
def test_failed_trial_is_reported_and_can_be_rerun(tmp_path: Path):
    (tmp_path / "text.txt").write_text("我们走在路上，你们看着我们。" * 30, encoding="utf-8")
    words = [f"--out={tmp_path}/out", "--vary=hidden-size=2,256", "--seeds=1", "--epochs=1"]
    words += [*TRAINED, f"--corpus={tmp_path}/text.txt", "--prefix=我"]
    assert experiment(*words).returncode == 0
    (tmp_path / "text.txt").write_text("他们走在路上，你们看着他们。" * 30, encoding="utf-8")
    for path in tmp_path.glob("out/document-s0/row.json"):
        path.unlink()
    done = experiment(*words)
    assert done.returncode == 1
    assert "document-s0: failed: error: --prefix 我" in done.stderr
    assert "Failed trials" in (tmp_path / "out" / "report.md").read_text(encoding="utf-8")
    (tmp_path / "text.txt").write_text("我们走在路上，你们看着我们。" * 30, encoding="utf-8")
    assert experiment("--retry-failed", *words).returncode == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["--vary=width=3"],
            "--vary width=3: should begin with one of max-chars, seq-len, learning-rate, ",
        ),
        (["--vary=seq-len="], "--vary seq-len=: give at least one value, as in seq-len=17,35,70"),
        (["--vary=batches=both"], "--vary batches=both: 'both' should be one of consecutive/epoch, "),
        (["--vary=hidden-size=0"], "--hidden-size 0: should be greater than or equal to 1"),
        (["--seeds=0"], "--seeds 0: should be at least 1"),
        (["--valid-fraction=1"], "--valid-fraction 1: should be between 0 and 1"),
        (["--report"], "--out {0}/out: holds no trials yet"),
        (["--", "--corpus=/nowhere/a.txt"], "--corpus /nowhere/a.txt: no such file"),
        (["--vary=max-chars=900"], "--corpus: too short, 32 streams of 35 characters need 1,152 and it has 810: "),
        (["--", "--eval-every=9"], "--eval-every after --: the trials determine it: leave it out"),
        (["--workers=3", "-H", "a:1,b:1"], "--workers 3: at most 2 can run (horovodrun --mpi on a:1,b:1): give fewer"),
        (["--interface=eth0"], "--interface eth0: only with -H or --hostfile: add one, or leave it out"),
        (["--", "--decay-epochs=3"], "--decay-epochs 3: has no effect without --learning-rate-schedule step or cosine"),
        (["--", "--seed=1"], "--seed after --: the trials determine it: use --seeds"),
    ],
)
def test_invalid_flag_is_reported_in_one_line(
    tmp_path: Path, words: List[str], message: str, capsys: pytest.CaptureFixture
):
    status, said = refusal(main, [f"--out={tmp_path}/out", *words], capsys)
    assert status in (2, 65, 66)
    assert said.startswith(message.format(tmp_path))
    assert not (tmp_path / "out").exists()


def test_hosts_are_checked_before_the_first_trial(tmp_path: Path, capsys: pytest.CaptureFixture):
    status, message = refusal(main, [f"--out={tmp_path}/out", "--workers=2", "-H", "nowhere.invalid:2"], capsys)
    assert status == 78
    assert message.startswith("host nowhere.invalid: ")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_program_refuses_an_invalid_flag(tmp_path: Path):
    done = experiment(f"--out={tmp_path}/out", "--seeds=0")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: --seeds 0: should be at least 1\n")
