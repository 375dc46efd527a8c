"""jobs/scale.py --slurm-array submits slurm/scaling.sbatch, can be interrupted, and collects the results later."""

import json
import sys
from pathlib import Path
from typing import Any, Dict, Optional

import pytest

from tests.support.programs import ROOT, run
from tests.support.scaling_results import read_rows
from tests.support.slurm_cluster import Cluster

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

Env = Optional[Dict[str, str]]
SMALL = ("--streams=4", "--steps=4", "--epochs=2", "--time-every=2", "--repeat=1", "--mode=strong")


def scale(
    cluster: Cluster, song_file: Path, out: Path, *flags: str, per_node: str = "2", env: Env = None, **how: Any
) -> Any:
    """Run jobs/scale.py on the head node."""
    program = (sys.executable, str(ROOT / "jobs" / "scale.py"), *SMALL, "--workers=1,2,4", f"--out={out}", *flags)
    array = ("--slurm-array", f"--per-node={per_node}", "--", "--hidden-size=8", "--seq-len=5", f"--corpus={song_file}")
    command = cluster.head.inside(*program, *array, cwd=cluster.submit_dir)
    return run(command, env=cluster.variables(env), **how)


def test_array_survives_the_end_of_its_submitter_and_is_collected(cluster: Cluster, song_file: Path, tmp_path: Path):
    out = tmp_path / "out"
    names = [f"strong-n00{number}-r1" for number in (1, 2, 4)]

    def submitted() -> Dict[str, str]:
        return json.loads((out / "array.json").read_text()) if (out / "array.json").exists() else {}

    held = scale(cluster, song_file, out, "--sbatch=--hold", interrupt_when=lambda: len(submitted()) == 3)
    assert "error: interrupted" in held.stderr
    jobs = submitted()
    assert sorted(jobs) == names
    assert not read_rows(out)
    for name in names:
        cluster.slurm("scontrol", "release", jobs[name])
    done = scale(cluster, song_file, out)
    assert submitted() == jobs, "no job is submitted twice"
    assert done.returncode == 0, done.stderr
    found = read_rows(out)
    assert [(found[name]["state"], found[name]["hosts"]) for name in names] == [
        ("finished", hosts) for hosts in (1, 1, 2)
    ]


def test_job_without_a_result_is_recorded_as_failed(cluster: Cluster, song_file: Path, tmp_path: Path):
    done = scale(cluster, song_file, tmp_path / "out", "--workers=1", env={"LSTM_DIST_ENV": "/nowhere"})
    assert done.returncode == 1
    row = read_rows(tmp_path / "out")["strong-n001-r1"]
    assert row["state"] == "failed"
    assert row["message"].startswith("Slurm job ")
    assert "/nowhere/bin/python" in row["message"]


def test_every_number_of_workers_per_node_gets_its_nodes(cluster: Cluster, song_file: Path, tmp_path: Path):
    done = scale(cluster, song_file, tmp_path / "out", "--workers=2", per_node="2,1")
    assert done.returncode == 0, done.stderr
    assert "2 jobs (2 --workers-per-node)" in done.stdout
    found = read_rows(tmp_path / "out")
    assert {name: row["hosts"] for name, row in found.items()} == {"strong-n002-r1": 1, "strong-n002-pernode1-r1": 2}
