"""Locks and syncing where the file system supports them, where it does not, and where they fail."""

import errno
import os
from pathlib import Path

import pytest

from lstm_dist.errors import UserError
from lstm_dist.files import claim, is_claimed, missing_guarantees, sync_folder
from tests.support.poor_file_system import (
    fails_with,
    without_hard_links,
    without_locks,
    without_permissions,
    without_synced_folders,
)

LOCKS = "cannot lock files: if two jobs write there at the same time, neither is refused"
SYNC = "cannot sync files and folders: if this machine crashes, what was written last, such as the newest checkpoint, "
PERMISSIONS = "does not keep owners and permissions: other users of it may be able to read and replace what is written"


def test_a_complete_file_system_lacks_nothing(tmp_path: Path):
    with claim(tmp_path):
        assert missing_guarantees(tmp_path) == []
        assert is_claimed(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOLCK], ids=os.strerror)
def test_folder_without_locks_is_used_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    without_locks(monkeypatch, number)
    with claim(tmp_path / "run"), claim(tmp_path / "run"):
        assert missing_guarantees(tmp_path) == [f"warning: the file system of {tmp_path} {LOCKS}"]
        assert f"process {os.getpid()} on " in (tmp_path / "run" / "lock").read_text()


@pytest.mark.parametrize("judged", ["run", "."])
def test_claim_without_a_lock_is_reported_although_locks_work_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, judged: str
):
    folder = tmp_path / judged
    with monkeypatch.context() as patch:
        without_locks(patch, errno.ENOLCK)  # a lock server that is restarting
        claim(tmp_path / "run").close()
    assert missing_guarantees(folder) == [f"warning: the file system of {folder} {LOCKS}"]
    with claim(tmp_path / "run"):
        assert missing_guarantees(folder) == []


def test_a_lock_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    without_locks(monkeypatch, errno.EIO)
    with pytest.raises(UserError, match=r"--run-dir .*: cannot be written \(no lock, Input/output error\)"):
        claim(tmp_path / "run")


@pytest.mark.parametrize("number", [errno.EINVAL, errno.ENOSYS], ids=os.strerror)
def test_folder_that_cannot_be_synced_is_used_with_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
):
    without_synced_folders(monkeypatch, number)
    assert not sync_folder(tmp_path)
    (warning,) = missing_guarantees(tmp_path)
    assert warning.startswith(f"warning: the file system of {tmp_path} {SYNC}")


@pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EROFS], ids=os.strerror)
def test_a_sync_that_fails_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int):
    without_synced_folders(monkeypatch, number)
    with pytest.raises(OSError, match=os.strerror(number)):
        sync_folder(tmp_path)
    assert missing_guarantees(tmp_path) == []  # what is written next reports it


def test_folder_that_any_user_can_replace_is_used_if_permissions_are_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    shared = tmp_path / "shared"
    shared.mkdir()
    without_permissions(monkeypatch, shared)
    with claim(shared / "run"):
        (warning,) = missing_guarantees(shared / "run")
    assert warning.startswith(f"warning: the file system of {shared / 'run'} {PERMISSIONS}")
    monkeypatch.undo()
    with pytest.raises(UserError, match="any user can replace it: run `chmod o-w "):
        claim(shared / "run")


def test_owners_that_are_not_kept_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)  # what this user creates belongs to another one
    with claim(tmp_path / "run"):
        (warning,) = missing_guarantees(tmp_path / "run")
    assert PERMISSIONS in warning


def test_folder_in_which_nothing_can_be_created_is_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(os, "mkdir", fails_with(errno.ENOSPC))
    assert missing_guarantees(tmp_path) == []
    without_hard_links(monkeypatch)
    assert missing_guarantees(tmp_path) == []  # a copy replaces them, and nothing is lost
