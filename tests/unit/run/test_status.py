"""Status files, and the first cause of a failure among ranks that only report the loss of another rank."""

import json
from pathlib import Path

import pytest

from lstm_dist.errors import ExitStatus
from lstm_dist.run import status
from lstm_dist.run.status import (
    clear_failures,
    describe_failure,
    first_failure,
    read_status,
    record_failure,
    write_status,
)


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    (tmp_path / "errors").mkdir()
    return tmp_path


def test_failed_writes_of_the_status_are_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    write_status(tmp_path, "running", step=3)
    record_failure(tmp_path, 1, 3, 70, "Error", "the cat")
    assert list(tmp_path.iterdir()) == []
    write_status(tmp_path / "absent", "running", step=3)


def test_first_failure_is_the_earliest_other_than_a_lost_peer(run_dir: Path, monkeypatch: pytest.MonkeyPatch):
    assert first_failure(run_dir) is None
    for moment, rank, code, message in (
        (1.0, 0, ExitStatus.PEER_LOST, "shut down"),
        (3.0, 1, ExitStatus.INTERNAL, "later"),
        (2.0, 2, ExitStatus.CANNOT_WRITE, "the disk is full"),
    ):
        monkeypatch.setattr(status.time, "time", lambda moment=moment: moment)
        record_failure(run_dir, rank, 40, int(code), "Kind", message)
    cause = first_failure(run_dir)
    assert cause is not None
    assert (cause.rank, cause.status, cause.step) == (2, 74, 40)
    assert cause.describe() == f"rank 2 on {cause.host}, after step 40: the disk is full"
    (run_dir / "errors" / "rank1.json").unlink()
    (run_dir / "errors" / "rank2.json").write_text('{"status": 7')  # truncated
    lost = first_failure(run_dir)
    assert lost is not None
    assert lost.status == ExitStatus.PEER_LOST
    clear_failures(run_dir)
    assert first_failure(run_dir) is None


def test_a_rank_keeps_its_first_cause(run_dir: Path):
    record_failure(run_dir, 0, 1, 70, "A", "first")
    record_failure(run_dir, 0, 1, 76, "B", "second")
    cause = first_failure(run_dir)
    assert cause is not None
    assert cause.message == "first"


def test_missing_directory_is_ignored(tmp_path: Path):
    record_failure(tmp_path / "absent", 0, 1, 70, "A", "first")
    assert read_status(tmp_path) == {}


def test_status_is_replaced_and_leaves_no_other_file(run_dir: Path):
    write_status(run_dir, "running", step=1)
    write_status(run_dir, "stopped", step=2, reason="歌\udcff")
    assert json.loads((run_dir / "status.json").read_bytes())["state"] == "stopped"
    assert read_status(run_dir)["reason"] == "歌\udcff"
    assert [p.name for p in run_dir.iterdir() if p.is_file()] == ["status.json"]


def test_ranks_without_an_error_record_are_named(run_dir: Path):
    assert describe_failure(run_dir) == ""
    write_status(run_dir, "running", step=30)
    assert describe_failure(run_dir) == "a rank exited without reporting an error (at step 30 or later)"
    (run_dir / "run.json").write_text(json.dumps({"ranks": [{"host": "n1"}, {"host": "n1"}, {"host": "n2"}]}))
    assert describe_failure(run_dir) == "all 3 ranks exited without reporting an error (at step 30 or later)"
    record_failure(run_dir, 0, 40, int(ExitStatus.PEER_LOST), "MXNetError", "shut down")
    assert (
        describe_failure(run_dir)
        == "rank 1 on n1, rank 2 on n2 exited without reporting an error (at step 30 or later)"
    )
    record_failure(run_dir, 2, 41, int(ExitStatus.INTERNAL), "Error", "the cat")
    assert describe_failure(run_dir).endswith(", after step 41: the cat")
    clear_failures(run_dir)
    write_status(run_dir, "stopped", step=30)
    assert describe_failure(run_dir) == ""
