"""The flags of the jobs: timed jobs train on the experiment's own text, the others on the same part of a text."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lstm_dist.experiments.launchers import Srun
from lstm_dist.experiments.subprocess_job import JobOutcome
from lstm_dist.scaling.experiment_folder import ExperimentFolder
from lstm_dist.scaling.point import Point
from lstm_dist.scaling.records import Experiment
from lstm_dist.scaling.train_runs import Target, TrainRuns, train_flags
from lstm_dist.train.command_line import parse_config

SETTINGS: Dict[str, Any] = {
    "streams": 4, "seq_len": 5, "hidden_size": 8, "vocab_size": 9, "parameters": 1, "bytes": 4_000, "steps": 3,
    "epochs": 2, "warm_up": 1, "time_every": 1, "threads": 1,
}  # fmt: skip


@pytest.mark.parametrize("given", [("--corpus", "a", "--corpus=b"), ("--corpus=a", "--seed=1", "--corpus", "b"), ()])
def test_timed_jobs_read_the_text_of_the_experiment_only(given: "tuple[str, ...]"):
    experiment = Experiment(**SETTINGS, flags=(*given, "--encoding=gb18030"), launcher="none")
    settings = parse_config(train_flags(experiment, Point("weak", 1, 4, 1), Path("corpus.txt"), Target(0, 0)))
    assert settings.corpus == [Path("corpus.txt")]
    assert (settings.encoding, settings.max_chars) == ("utf-8", 4 * (3 * 5 + 1))
    target = parse_config(train_flags(experiment, Point("perplexity", 1, 4, 1), Path("corpus.txt"), Target(5, 9)))
    assert target.corpus == ([Path("a"), Path("b")] if given else None)
    assert target.max_chars == 20_000


def test_folder_from_before_the_length_was_stored_continues_with_20000_characters(tmp_path: Path):
    text, songs = parse_config(["--corpus=a.txt"]), parse_config([])
    (tmp_path / "prepared").mkdir()
    prepared = parse_config([f"--corpus={tmp_path}/prepared"])
    folder = ExperimentFolder(tmp_path)
    assert folder.max_chars(text) == 0
    (tmp_path / "experiment.json").write_text(json.dumps({"flags": ["--corpus=a.txt"]}))
    assert folder.max_chars(text) == 0, "there is no job that has trained on less"
    (tmp_path / "points").mkdir()
    assert (folder.max_chars(text), folder.max_chars(songs), folder.max_chars(prepared)) == (20_000, 20_000, 0)
    (tmp_path / "experiment.json").write_text(json.dumps({"flags": ["--corpus=a.txt"], "max_chars": 0}))
    assert (folder.max_chars(text), folder.max_chars(songs)) == (0, 20_000)


def profiles(epoch: int, *sent: int) -> List[Dict[str, Any]]:
    return [{"epoch": epoch, "rank": 0, "bytes": size} for size in sent]


@pytest.mark.parametrize(
    ("times", "expected"),
    [
        ([*profiles(1, 1, 1, 1), *profiles(2, 900, 700, 800)], 800),
        (profiles(1, 1), 4_000),
        ([{"epoch": 2, "rank": 0}], 4_000),  # written before the bytes were recorded
    ],
)
def test_row_has_the_bytes_of_its_profiled_steps(times: List[Dict[str, Any]], expected: int, tmp_path: Path):
    experiment = Experiment(**SETTINGS, launcher="none")
    point = Point("weak", 2, 8, 1)
    runs = TrainRuns([point], experiment, ExperimentFolder(tmp_path), Srun(2, 1), Target(0, 0))
    run_dir = runs.folder / point.name / "run"
    run_dir.mkdir(parents=True)
    metrics = [{"epoch": epoch, "chars_per_sec": 10.0} for epoch in (1, 2)]
    for name, records in (("metrics", metrics), ("times", times)):
        (run_dir / f"{name}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    assert runs.row(point.name, JobOutcome(0, "", 1.0))["bytes"] == expected
    assert runs.row(point.name, JobOutcome(70, "failed", 1.0))["bytes"] == 4_000
