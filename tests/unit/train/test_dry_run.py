"""The table of a dry run: workers on several hosts, bytes in the type of communication, a run to resume."""

from pathlib import Path
from typing import Any, Dict, List

import pytest

from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.train.callbacks import BEGINNING, Progress
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.dry_run import describe_dry_run, step_bytes
from lstm_dist.train.resume import PreviousRun
from lstm_dist.train.setup import Job, set_up
from tests.support.fake_world import FakeWorld, SilentStartup

PROCESS = {"code": "0" * 64, "versions": {"numpy": "1.23.5"}}
ALONE = Affinity(1, frozenset({0}))
H100 = "NVIDIA H100"


def job(song_file: Path, *flags: str, size: int = 1) -> Job:
    small = ["--hidden-size=8", "--global-batch-size=7", "--seq-len=5", "--max-chars=600", f"--corpus={song_file}"]
    return set_up(parse_config([*small, *flags]), FakeWorld(0, size), SilentStartup())


def rank(host: str, device: str, gpu: str, cores: List[int]) -> List[Dict[str, Any]]:
    facts = {"host": host, "device": device, "gpu": gpu, "threads": 1, "cores": cores, "processor": "one"}
    return [facts, {"kernel": "6.1"}]


def rows(lines: List[str]) -> Dict[str, str]:
    split = [line[2:].split("  ", 1) if not line.startswith("    ") else line[4:].split("  ", 1) for line in lines[1:]]
    return {name: text.strip() for name, text in split}


def test_workers_are_grouped_by_host_and_their_devices_are_named_in_order(song_file: Path):
    ranks = [
        rank("n1", "gpu(0)", f"{H100} at 1", [0, 1]),
        rank("n1", "gpu(1)", f"{H100} at 2", [2, 3]),
        rank("n2", "gpu(0)", f"{H100} at 1", [0, 1]),
    ]
    shares = [[2, 5_000_000, 80_000_000_000], [2, 5_000_000, 80_000_000_000], [3, 7_000_000, 70_000_000_000]]
    world = FakeWorld(0, 3, answers={"ranks": ranks, "shares": shares, "gpus": [["n1", ""]] * 3})
    found = rows(describe_dry_run(job(song_file, size=3), None, world, PROCESS, ALONE))  # type: ignore[arg-type]
    assert found["workers"] == "3 over gloo"
    assert found["ranks 0-1"] == (f"n1: gpu(0) {H100} at 1, gpu(1) {H100} at 2; 2 streams and 1 thread each; cores 0-3")
    assert found["rank 2"] == f"n2: gpu(0) {H100} at 1; 3 streams and 1 thread; cores 0-1"
    assert found["memory"] == "at least 7.0 MB for the arrays of a worker, which may use 70.0 GB"


@pytest.mark.parametrize(("wire_dtype", "width"), [("float32", 4), ("float16", 2)])
def test_bytes_are_those_of_the_type_of_communication(song_file: Path, wire_dtype: str, width: int):
    resolved = job(song_file, f"--wire-dtype={wire_dtype}")
    numbers = resolved.model.weights.size + FLAGS
    assert step_bytes(resolved, BEGINNING) == [width * numbers] * resolved.batches.steps_per_epoch
    last = Progress(step=3, position=resolved.batches.steps_per_epoch - 1)
    assert len(step_bytes(resolved, last)) == 1
    assert step_bytes(resolved, last._replace(position=resolved.batches.steps_per_epoch)) == []


def test_only_the_root_describes_a_job_and_says_how_it_resumes(song_file: Path):
    facts = {"workers": 2, "controller": "mpi", "threads": 1, **PROCESS, "code": "f" * 64}
    previous = PreviousRun(Progress(step=7, epoch=0, position=7), facts, [], None)
    resolved = job(song_file, "--run-dir=run", size=2)
    told = [
        describe_dry_run(resolved, previous, FakeWorld(number, 2), PROCESS, ALONE)  # type: ignore[arg-type]
        for number in range(2)
    ]
    assert told[1] == []
    assert any(line.endswith("run, continued after step 7; nothing is written now") for line in told[0])
    assert "(code ffffffffffff -> 000000000000)" in told[0][-2]
    assert told[0][-1].startswith("resumed after step 7, in epoch 1; ")


@pytest.mark.parametrize(("name", "replaces"), [("metrics.jsonl", True), ("notes.md", False)])
def test_run_that_would_be_deleted_is_named(song_file: Path, tmp_path: Path, name: str, replaces: bool):
    (tmp_path / name).touch()
    resolved = job(song_file, f"--run-dir={tmp_path}", "--overwrite")
    found = rows(describe_dry_run(resolved, None, FakeWorld(), PROCESS, ALONE))  # type: ignore[arg-type]
    said = ", in place of the run that it holds" if replaces else ""
    assert found["output"] == f"{tmp_path}{said}; nothing is written now"
