"""A run that is resumed under other code: the log says so, checkpoints name the code, run.json keeps every start."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lstm_dist.cluster import provenance
from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.programs import train
from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.fake_world import SilentStartup
from tests.support.programs import TINY, newest

FIRST, SECOND, THIRD = "1" * 64, "2" * 64, "3" * 64


class Versions:
    """Trains a run in this process, each time by another version of the code."""

    def __init__(self, run_dir: Path, corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_dir, self._monkeypatch = run_dir, monkeypatch
        self._flags = [*TINY, f"--corpus={corpus}", f"--run-dir={run_dir}", "--sample-length=5"]

    def start(self, code: str, *flags: str) -> List[str]:
        """Train, and return the new lines of the log."""
        commit = {"git_commit": f"commit of {code[:4]}", "git_uncommitted": None}
        self._monkeypatch.setattr(provenance, "code_digest", lambda _: code)
        self._monkeypatch.setattr(provenance, "git_facts", lambda: commit)
        before = len(self.log())
        umask = os.umask(0o077)
        try:
            train.main(SilentStartup(), Affinity(1, frozenset({0})), [*self._flags, *flags])  # type: ignore[arg-type]
        finally:
            os.umask(umask)
        return self.log()[before:]

    def log(self) -> List[str]:
        path = self.run_dir / "log.txt"
        return path.read_text(encoding="utf-8").splitlines() if path.exists() else []

    def card(self) -> Dict[str, Any]:
        card: Dict[str, Any] = json.loads((self.run_dir / "run.json").read_bytes())
        return card

    def codes(self) -> List[Any]:
        return [start["code"] for start in self.card()["starts"]]


@pytest.fixture
def versions(tmp_path: Path, song_file: Path, monkeypatch: pytest.MonkeyPatch) -> Versions:
    return Versions(tmp_path / "run", song_file, monkeypatch)


def notes(lines: List[str]) -> List[str]:
    return [line for line in lines if "other software" in line]


def test_run_is_resumed_over_three_versions_of_the_code(versions: Versions):
    said = versions.start(FIRST, "--epochs=1", "--valid-fraction=0.2")
    assert notes(said) == []
    steps = load_checkpoint(newest(versions.run_dir), "test").facts["progress"]["step"]
    for number, (before, code) in enumerate([(FIRST, FIRST), (FIRST, SECOND), (SECOND, THIRD)], 2):
        said = versions.start(code, "--resume", f"--epochs={number}")
        changed = f"(code {before[:12]} -> {code[:12]})"
        assert [changed in line for line in notes(said)] == ([] if before == code else [True])
        assert load_checkpoint(newest(versions.run_dir), "test").facts["code"] == code
    best = load_checkpoint(versions.run_dir / "checkpoints" / "best.safetensors", "test")
    assert best.facts["code"] in (FIRST, SECOND, THIRD)

    card = versions.card()
    assert (card["code"], card["git_commit"], card["step"]) == (THIRD, "commit of 3333", 3 * steps)
    assert versions.codes() == [FIRST, FIRST, SECOND, THIRD]
    assert [start["step"] for start in card["starts"]] == [0, steps, 2 * steps, 3 * steps]
    assert [start["git_commit"][-4:] for start in card["starts"]] == ["1111", "1111", "2222", "3333"]
    assert all(start["started"] <= card["started"] and start["hosts"] for start in card["starts"])
    assert card["goodput"]["attempts"] == 4


def test_starts_before_the_first_checkpoint_are_kept_unless_the_run_is_replaced(versions: Versions):
    versions.start(FIRST)
    for path in (versions.run_dir / "checkpoints").iterdir():  # as if it had been killed before it wrote one
        path.unlink()
    versions.start(SECOND, "--auto-resume")
    assert versions.codes() == [FIRST, SECOND]
    versions.start(THIRD, "--overwrite")
    assert versions.codes() == [THIRD]
