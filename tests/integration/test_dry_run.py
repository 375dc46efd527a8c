"""A dry run under launchers, and its numbers beside those of the run that follows."""

import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from tests.support.launchers import ENVIRONMENT, mpirun
from tests.support.programs import ROOT, TINY, TRAIN, run

pytestmark = pytest.mark.slow

SUPERVISE = ["python", str(ROOT / "launch" / "supervise.py")]
# 16 or 17 streams of 35 characters of the packaged songs for each of two workers: they exchange the rows of a batch.
FLAGS = ["--hidden-size=128", "--global-batch-size=33", "--epochs=1", "--sample-length=5", "--time-every=1"]


def table(stdout: str) -> Dict[str, str]:
    """Return the rows of a dry run by name."""
    lines = stdout.splitlines()
    begin = lines.index("dry run: the job would start as follows")
    rows = [re.fullmatch(r"  ( *\S+(?: \S+)*)  +(.*)", line) for line in lines[begin + 1 :]]
    return {row[1].strip(): row[2] for row in rows if row}


def numbers(text: str) -> List[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\d[\d,]*", text)]


@pytest.mark.parametrize("workers", [1, 2])
def test_dry_run_tells_what_the_run_then_does(tmp_path: Path, workers: int):
    command = [*(mpirun(workers) if workers > 1 else []), *TRAIN, *FLAGS, "--run-dir=run"]
    dry = run([*command, "--dry-run"], cwd=tmp_path, env=ENVIRONMENT)
    assert dry.returncode == 0, dry.stderr
    assert list(tmp_path.iterdir()) == []
    told = table(dry.stdout)

    done = run(command, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    card: Dict[str, Any] = json.loads((tmp_path / "run" / "run.json").read_bytes())
    times = [json.loads(line) for line in (tmp_path / "run" / "times.jsonl").read_text().splitlines()]
    assert told["text"] == card["corpus"]
    assert re.search(rf" {numbers(told['model'])[0]:,} parameters, 33 consecutive streams of 35, ", done.stdout)
    steps, all_steps, epochs = numbers(told["steps"])
    assert len(times) == steps * workers
    assert (all_steps, epochs) == (steps, 1)
    assert f"({steps} steps counted)" in told["gradients"]
    low, high = numbers(told["gradients"])[:2]
    sent = {row["bytes"] for row in times}
    assert (low, high) == (min(sent), max(sent))
    assert numbers(told["workers"])[0] == card["workers"] == workers
    (placed,) = [text for name, text in told.items() if name.startswith("rank")]
    cores = sorted({core for rank in card["ranks"] for core in rank["cores"]})
    assert placed.startswith(f"{card['ranks'][0]['host']}: {card['ranks'][0]['device']}; ")
    assert ("33 streams and 1 thread" if workers == 1 else "16-17 streams and 1 thread each") in placed
    assert len(cores) == 1 or f"{cores[0]}" in placed.rpartition("; ")[2]


@pytest.mark.parametrize("workers", [1, 2])
def test_supervisor_shows_the_table_once_and_ends_with_0(tmp_path: Path, song_file: Path, workers: int):
    flags = ["-n", str(workers), "--max-restarts=3", *TINY, f"--corpus={song_file}", "--dry-run"]
    done = run([*SUPERVISE, *flags], cwd=tmp_path, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert table(done.stdout)["steps"] == "29 an epoch, 58 in 2 epochs"
    assert done.stdout.count("dry run: ") == 1
    assert list(tmp_path.iterdir()) == []


def test_wrong_setting_is_one_line(tmp_path: Path, song_file: Path):
    flags = ["-n", "2", *TINY, f"--corpus={song_file}", "--global-batch-size=1", "--dry-run"]
    done = run([*SUPERVISE, *flags], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 2
    assert done.stderr.count("error: --global-batch-size 1: fewer streams than the 2 workers") == 1
    assert list(tmp_path.iterdir()) == []
