"""Files written by commit 292ec5e, before the library became packages, are read by the present code.

tests/data holds a run after 2 of 4 epochs, the checkpoint with which that commit resumed it to the end, and a scaling
folder. The expected numbers in this file are those that commit printed.
"""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from lstm_dist.programs import report, sample
from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.launchers import ENVIRONMENT
from tests.support.programs import ROOT, TRAIN, newest, run

DATA = ROOT / "tests" / "data"
SONG = f"--corpus={DATA}/song.txt"


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DATA / "run_of_292ec5e", tmp_path / "run"))


@pytest.mark.slow
def test_old_run_is_resumed_on_the_same_trajectory(old_run: Path):
    done = run([*TRAIN, "--resume", f"--run-dir={old_run}", SONG, "--epochs=4"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert re.search(r"^resumed after step 22, in epoch 3; kernels unknown -> \w+ \w+ AVX-512: ", done.stdout, re.M)
    ours = load_checkpoint(newest(old_run), "test")
    theirs = load_checkpoint(DATA / "resumed_by_292ec5e.safetensors", "test")
    assert ours.facts["progress"]["step"] == theirs.facts["progress"]["step"] == 44
    assert (ours.parameters.keys(), ours.state.keys()) == (theirs.parameters.keys(), theirs.state.keys())
    for name, expected in {**theirs.parameters, **theirs.state}.items():
        found = {**ours.parameters, **ours.state}[name]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6, err_msg=name)
    rows = [json.loads(line) for line in (old_run / "metrics.jsonl").read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert rows[1]["perplexity"] == pytest.approx(148.4210133725943)


def test_samples_of_an_old_run_are_unchanged(old_run: Path, capsys: pytest.CaptureFixture):
    for line in (old_run / "samples.jsonl").read_text(encoding="utf-8").splitlines():
        written = json.loads(line)
        if written["epoch"] == 2:
            sample.main([str(old_run), f"--prefix={written['prefix']}", "--length=10"])
            assert capsys.readouterr().out == f"{written['text']}\n"


@pytest.mark.slow
def test_perplexity_of_an_old_run_is_unchanged(old_run: Path):
    done = run(["python", str(ROOT / "jobs" / "evaluate.py"), str(old_run), SONG], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    (found,) = re.findall(r"perplexity ([0-9.]+) \|", done.stdout)
    assert float(found) == pytest.approx(139.152, rel=1e-4)


def test_report_of_an_old_scaling_folder_has_all_jobs(tmp_path: Path, capsys: pytest.CaptureFixture):
    folder = Path(shutil.copytree(DATA / "scaling_of_292ec5e", tmp_path / "scaling"))
    report.main([str(folder)])
    assert capsys.readouterr().out.startswith("One worker takes 5.0 ms per step, 73\N{NO-BREAK SPACE}% of it compute")
    rows = (folder / "scaling.csv").read_text(encoding="utf-8").splitlines()
    assert len(rows) == 5, "a header, and weak and strong scaling with one and two workers"
