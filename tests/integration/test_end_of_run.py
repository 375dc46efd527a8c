"""How runs end that start in a poor place, or learn nothing: in one process, because no launcher is involved."""

import json
from pathlib import Path
from typing import Any

import pytest

from lstm_dist.run.checkpoint_dir import FINAL
from tests.support.poor_file_system import without_hard_links, without_locks, without_synced_folders
from tests.support.programs import TINY, newest
from tests.support.refusals import train_here


def of(run_dir: Path, name: str) -> Any:
    return json.loads((run_dir / name).read_text(encoding="utf-8"))


def test_run_in_a_poor_file_system_ends_well_after_warnings(
    song_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    run_dir = tmp_path / "run"
    without_locks(monkeypatch)
    without_synced_folders(monkeypatch)
    without_hard_links(monkeypatch)
    assert train_here([*TINY, f"--corpus={song_file}", f"--run-dir={run_dir}", "--prefix=分开"]) == 0
    warnings = of(run_dir, "run.json")["warnings"]
    assert [warning.split(":")[0] for warning in warnings] == ["warning"] * 2
    assert ["cannot lock files" in warnings[0], "cannot sync files" in warnings[1]] == [True, True]
    log = (run_dir / "log.txt").read_text(encoding="utf-8")
    shown = capfd.readouterr().out
    for warning in warnings:
        assert log.count(warning) == shown.count(warning) == 1
    assert (run_dir / "checkpoints" / FINAL).read_bytes() == newest(run_dir).read_bytes()
    assert train_here(["--resume", f"--run-dir={run_dir}", "--epochs=3"]) == 0
    assert (run_dir / "checkpoints" / FINAL).read_bytes() == newest(run_dir).read_bytes()
    assert of(run_dir, "status.json")["epoch"] == 3


def test_diverged_run_ends_with_its_own_status(song_file: Path, tmp_path: Path, capfd: pytest.CaptureFixture):
    run_dir = tmp_path / "run"
    flags = [*TINY, f"--corpus={song_file}", f"--run-dir={run_dir}", "--prefix=分开", "--learning-rate=50"]
    assert train_here(flags) == 80
    error = capfd.readouterr().err
    assert error.startswith("error: training has diverged: the perplexity of the last epoch, ")
    assert error.count("\n") == 1
    assert error in (run_dir / "log.txt").read_text(encoding="utf-8")
    assert (of(run_dir, "status.json")["state"], of(run_dir, "errors/rank0.json")["status"]) == ("failed", 80)
    assert (run_dir / "checkpoints" / FINAL).samefile(newest(run_dir))
    assert (run_dir / "perplexity.png").exists()
    assert train_here(["--resume", f"--run-dir={run_dir}"]) == 80  # there is nothing left to train
    capfd.readouterr()
    assert train_here([*flags, "--overwrite", "--learning-rate=0.1"]) == 0
    assert capfd.readouterr().err == ""
