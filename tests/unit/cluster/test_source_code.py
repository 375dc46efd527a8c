"""The digest of the code, and what git says of a folder: changed, unchanged, unknown, and in time."""

import os
import subprocess
import time
from pathlib import Path
from typing import Callable, Dict

import pytest

from lstm_dist.cluster import source_code
from lstm_dist.cluster.source_code import code_digest, git_facts

UNKNOWN = {"git_commit": None, "git_uncommitted": None}


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("lstm_dist/model/lstm.py", True),
        ("lstm_dist/cuda/kernels/cell.cu", True),
        ("lstm_dist/rng.py", True),
        ("lstm_dist/programs/train.py", True),
        ("jobs/train.py", True),
        ("lstm_dist/programs/report.py", False),
        ("lstm_dist/scaling/tables/cells.py", False),
        ("lstm_dist/bench/plot.py", False),
    ],
)
def test_digest_covers_the_code_that_determines_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, differs: bool
):
    monkeypatch.setattr(source_code, "__file__", str(tmp_path / "lstm_dist/cluster/source_code.py"))
    path = tmp_path / changed
    path.parent.mkdir(parents=True)
    path.write_text("a = 1")
    before = code_digest(tmp_path / "jobs/train.py")
    path.write_text("a = 2")
    assert (code_digest(tmp_path / "jobs/train.py") != before) == differs


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """Return a repository with one commit of `a.py`, in which `*.log` is ignored."""
    folder = tmp_path / "repository"
    folder.mkdir()
    (folder / "a.py").write_text("a = 1\n")
    (folder / ".gitignore").write_text("*.log\n")
    mine = ["-c", "user.name=me", "-c", "user.email=me@example.org"]
    for words in (["init", "-q"], ["add", "."], [*mine, "commit", "-q", "-m", "first"]):
        subprocess.run(["git", "-C", str(folder), *words], check=True)
    return folder


def add(name: str, text: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_text(text)


@pytest.mark.parametrize(
    ("change", "counts", "is_dirty"),
    [
        (add("a.py", "a = 2\n"), True, True),
        (add("b.py", "b = 1\n"), True, False),
        (add("notes.md", "mine"), False, False),
        (add("b.log", "long"), False, False),
        (lambda folder: os.utime(folder / "a.py", (1, 1)), False, False),
    ],
    ids=["changed", "new source", "new file", "ignored file", "touched"],
)
def test_uncommitted_source_has_a_digest(
    repository: Path, change: Callable[[Path], object], counts: bool, is_dirty: bool
):
    before = git_facts(repository)
    assert before["git_commit"] is not None
    assert len(before["git_commit"]) == 40
    assert before["git_uncommitted"] == ""
    change(repository)
    after = git_facts(repository)
    assert after["git_commit"] == before["git_commit"] + ("-dirty" if is_dirty else "")
    assert bool(after["git_uncommitted"]) == counts
    assert git_facts(repository) == after


def test_digest_depends_on_the_content_and_the_name_of_new_sources(repository: Path):
    found = set()
    for name, text in (("b.py", "1"), ("b.py", "2"), ("c.py", "2")):
        (repository / name).write_text(text)
        found.add(git_facts(repository)["git_uncommitted"])
        (repository / name).unlink()
    assert len(found) == 3


def test_slow_reading_of_new_sources_leaves_their_digest_unknown(repository: Path, monkeypatch: pytest.MonkeyPatch):
    for number in range(200):
        (repository / f"new{number}.py").write_text("")
    monkeypatch.setattr(source_code, "_content", lambda _: time.sleep(0.1) or b"")
    began, facts = time.monotonic(), git_facts(repository, limit=1.0)
    assert time.monotonic() - began < 5
    assert facts["git_uncommitted"] is None
    assert facts["git_commit"] is not None


def test_folder_in_another_repository_has_no_commit(repository: Path, monkeypatch: pytest.MonkeyPatch):
    (repository / "lib").mkdir()
    assert git_facts(repository / "lib") == UNKNOWN
    monkeypatch.setenv("GIT_DIR", str(repository / "lib"))  # as in a hook
    assert git_facts(repository)["git_commit"] is not None


@pytest.mark.parametrize("programs", [{}, {"git": "exec sleep 30"}, {"git": "sleep 30 & wait"}, {"git": "exit 1"}])
def test_missing_slow_or_failing_git_leaves_the_facts_unknown(
    repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, programs: Dict[str, str]
):
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, script in programs.items():
        (folder / name).write_text(f"#!/bin/sh\nPATH=/bin:/usr/bin; {script}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))
    began = time.monotonic()
    assert git_facts(repository, limit=0.3) == UNKNOWN
    assert time.monotonic() - began < 5
