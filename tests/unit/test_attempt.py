"""Attempts at a job that share a run directory: only the newest may write there."""

import json
import threading
from pathlib import Path

import pytest

from lstm_dist.attempt import ATTEMPT, FIRST_ATTEMPT, Attempt
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import claim, is_claimed, is_superseded, partial_of, remove_partials
from lstm_dist.run import checkpoint_dir
from lstm_dist.run.checkpoint_dir import CheckpointDir
from lstm_dist.run.run_log import RootLog
from lstm_dist.run.status import failures, first_failure, read_status, record_failure, silent_ranks, write_status


def be(monkeypatch: pytest.MonkeyPatch, attempt: str) -> None:
    """Let this process belong to an attempt."""
    monkeypatch.setenv(ATTEMPT, attempt)


def test_attempts_are_written_and_read():
    assert Attempt.parse(str(Attempt("a.b", 12))) == Attempt("a.b", 12)
    for text in ("", "7", ".1", "a.", "a.-1", "a.x"):
        assert Attempt.parse(text) is None


@pytest.mark.parametrize(("other", "precedes"), [("a.2", True), ("a.10", True), ("a.1", False), ("b.2", False)])
def test_earlier_attempts_at_the_same_job_precede(other: str, precedes: bool):
    assert Attempt("a", 1).precedes(Attempt.parse(other)) == precedes
    assert not Attempt("a", 1).precedes(None)


def test_program_that_starts_attempts_begins_with_a_new_job_or_as_it_was_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv(FIRST_ATTEMPT, raising=False)
    be(monkeypatch, "a.1")
    assert Attempt.first().number == 1
    assert len({Attempt.first().job, Attempt.first().job, "a"}) == 3
    monkeypatch.setenv(FIRST_ATTEMPT, "4711.2000001")
    assert Attempt.first() == Attempt("4711", 2000001)


def test_lock_of_an_earlier_attempt_is_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    be(monkeypatch, "a.1")
    with claim(tmp_path):
        assert not is_superseded(tmp_path)
        be(monkeypatch, "a.2")
        with claim(tmp_path):
            assert not is_superseded(tmp_path)
            assert is_claimed(tmp_path)
            be(monkeypatch, "a.1")
            assert is_superseded(tmp_path)
    assert not is_claimed(tmp_path)
    with pytest.raises(UserError, match="a later attempt at this job writes there") as caught:
        claim(tmp_path)  # also after the later one has ended
    assert caught.value.status == ExitStatus.PEER_LOST
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("other", ["b.2", "a.1", ""])
def test_lock_of_another_job_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: str):
    be(monkeypatch, "a.1")
    with claim(tmp_path):
        be(monkeypatch, other)
        with pytest.raises(UserError, match=r"another job is writing there \(process \d+ on \S+\): wait until"):
            claim(tmp_path)
        assert not is_superseded(tmp_path)


def test_stale_root_writes_neither_checkpoint_nor_log_nor_status(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    be(monkeypatch, "a.1")
    stale = RootLog(tmp_path)
    checkpoints = CheckpointDir.of_run(tmp_path)
    checkpoints.commit(1, b"one")
    write_status(tmp_path, "running", step=1)
    be(monkeypatch, "a.2")
    lock = claim(tmp_path)
    write_status(tmp_path, "running", step=2)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    be(monkeypatch, "a.1")
    write_status(tmp_path, "failed", step=3)
    record_failure(tmp_path, 0, 3, 76, "MXNetError", "shut down")
    with pytest.raises(UserError, match="a later attempt"):
        checkpoints.commit(3, b"three")
    row = {"step": 3, "rank": 0, "host": "a", "data": 0.0, "compute": 1.0, "wait": 0.0, "wire": 0.0, "update": 0.0}
    for write in (lambda: stale.note("a line"), lambda: stale.start({}, {}, 1, 1), lambda: stale.times(1, [row])):
        with pytest.raises(UserError, match="a later attempt"):
            write()
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    assert read_status(tmp_path)["attempt"] == "a.2"
    for file in (lock, stale._log, stale._metrics, stale._samples, stale._lock):
        file.close()


def test_stale_root_that_is_writing_a_checkpoint_does_not_commit_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    be(monkeypatch, "a.1")
    locks = [claim(tmp_path)]
    (tmp_path / "checkpoints").mkdir()
    checkpoints = CheckpointDir.of_run(tmp_path)

    def write(path: Path, data: bytes) -> None:
        path.write_bytes(data)
        be(monkeypatch, "a.2")
        locks.append(claim(tmp_path))
        be(monkeypatch, "a.1")

    monkeypatch.setattr(checkpoints, "_write", write)
    with pytest.raises(UserError, match="a later attempt"):
        checkpoints.commit(1, b"one")
    assert list(checkpoints.folder.iterdir()) == []
    for lock in locks:
        lock.close()


@pytest.mark.parametrize("removes", [False, True])
def test_stale_root_that_is_blocked_in_a_write_does_not_touch_that_of_the_new_root(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, removes: bool
):
    """It continues while the new root writes the same file, which may have removed the stale partial file before."""
    mine, blocked, may_continue = threading.local(), threading.Event(), threading.Event()
    monkeypatch.setattr(Attempt, "current", lambda: Attempt("a", mine.number))
    (tmp_path / "checkpoints").mkdir()
    checkpoints, refusals = CheckpointDir.of_run(tmp_path), []

    def be_stale() -> None:
        mine.number = 1
        with claim(tmp_path), pytest.raises(UserError) as caught:
            checkpoints.commit_best(b"old")
        refusals.append(caught.value)

    stale = threading.Thread(target=be_stale)

    def sync(_: int) -> None:
        if mine.number == 1:
            blocked.set()
            may_continue.wait(20)
        else:
            may_continue.set()
            stale.join(20)

    monkeypatch.setattr(checkpoint_dir, "sync", sync)
    stale.start()
    assert blocked.wait(20)
    mine.number = 2
    with claim(tmp_path):
        if removes:
            remove_partials(checkpoints.folder, "*")
            assert list(checkpoints.folder.iterdir()) == []
        checkpoints.commit_best(b"new")
    assert "a later attempt" in str(refusals[0])
    assert [path.name for path in checkpoints.folder.iterdir()] == [checkpoint_dir.BEST]
    assert (checkpoints.folder / checkpoint_dir.BEST).read_bytes() == b"new"


@pytest.mark.parametrize(
    ("writer", "is_kept"), [("a.1", False), ("a.2", False), ("a.3", True), ("b.3", False), ("", False)]
)
def test_partial_files_of_later_attempts_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, writer: str, is_kept: bool
):
    be(monkeypatch, writer)
    partial = partial_of(tmp_path / "best.safetensors")
    partial.touch()
    be(monkeypatch, "a.2")
    remove_partials(tmp_path, "*.safetensors*")
    assert partial.exists() == is_kept


def test_failures_of_other_attempts_are_left_out_and_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "errors").mkdir()
    (tmp_path / "run.json").write_text(json.dumps({"ranks": [{"host": "n1"}, {"host": "n2"}]}))
    be(monkeypatch, "a.1")
    record_failure(tmp_path, 0, 7, 70, "Error", "the first")
    record_failure(tmp_path, 1, 7, 76, "MXNetError", "shut down")
    assert first_failure(tmp_path, "a.2") is None
    be(monkeypatch, "a.2")
    record_failure(tmp_path, 1, 9, 76, "MXNetError", "again")
    assert [cause.message for cause in failures(tmp_path, "a.2")] == ["again"]
    assert [cause.message for cause in failures(tmp_path)] == ["the first", "again"]
    assert silent_ranks(tmp_path, "a.2") == {0: "n1"}
