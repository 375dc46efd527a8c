"""Checkpoints are written atomically: a failure at any file operation leaves an intact checkpoint."""

import errno
import os
from pathlib import Path
from typing import List

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import partial_of, remove_partials
from lstm_dist.run.checkpoint import unpack
from lstm_dist.run.checkpoint_dir import FINAL, CheckpointDir
from tests.support.failing_disk import FAULTS, CrashError, commit_with_fault, data, newest_step, with_three
from tests.support.poor_file_system import without_hard_links, without_synced_folders


@pytest.fixture
def store(tmp_path: Path) -> CheckpointDir:
    return CheckpointDir(tmp_path)


def test_the_newest_three_are_kept(store: CheckpointDir):
    for step in (0, 9, 10, 99, 100):
        assert store.commit(step, data(step)).stat().st_mode & 0o777 == 0o600
    assert [p.name for p in store.paths()] == [f"step-{k:09d}.safetensors" for k in (100, 99, 10)]
    assert newest_step(store) == 100


def test_checkpoints_are_sorted_numerically_by_step(store: CheckpointDir):
    for step in (999_999_997, 999_999_998, 999_999_999, 1_000_000_000):
        store.commit(step, data(step))
    assert newest_step(store) == 1_000_000_000
    assert len(store.paths()) == 3


def test_unreadable_checkpoint_is_skipped(store: CheckpointDir):
    store.commit(1, data(1))
    (store.folder / "step-000000002.safetensors").mkdir()
    found = store.newest()
    assert found.checkpoint.facts["step"] == 1
    assert "step-000000002.safetensors: cannot be read (Is a directory)" in found.refused[0]
    assert (store.folder / "step-000000002.safetensors").is_dir()


def test_file_too_large_for_the_memory_is_not_read(store: CheckpointDir):
    store.commit(1, data(1))
    with (store.folder / "step-000000002.safetensors").open("wb") as file:
        file.truncate(2**42)  # a sparse file, which takes no space on the disk
    found = store.newest()
    assert found.checkpoint.facts["step"] == 1
    assert "step-000000002.safetensors: cannot be read (larger than half of this machine's memory)" in found.refused[0]


def test_commit_of_the_same_step_replaces_the_checkpoint(store: CheckpointDir):
    store.commit(5, data(5))
    store.commit(5, data(6))
    assert newest_step(store) == 6
    assert len(store.paths()) == 1


def test_damaged_checkpoints_are_reported_and_set_aside(store: CheckpointDir):
    """Damaged checkpoints are reported and set aside, and the newest intact one is returned."""
    for step in (1, 2, 3):
        store.commit(step, data(step))
    third, second, _ = store.paths()
    third.write_bytes(third.read_bytes()[:-1])
    second.write_bytes(second.read_bytes() + b"\0")
    found = store.newest()
    assert found.checkpoint.facts["step"] == 1
    assert [third.name in found.refused[0], second.name in found.refused[1]] == [True, True]
    assert sorted(p.name for p in store.folder.iterdir()) == [
        "step-000000001.safetensors", "step-000000002.safetensors.corrupt", "step-000000003.safetensors.corrupt",
    ]  # fmt: skip
    assert newest_step(store) == 1


def test_no_intact_checkpoint_left_is_an_error(store: CheckpointDir):
    """Without an intact checkpoint, the error lists the damaged ones, also if they were set aside before."""
    with pytest.raises(UserError, match="there is no checkpoint in") as nothing:
        store.newest()
    assert nothing.value.status == ExitStatus.NO_INPUT
    store.commit(1, data(1))
    store.paths()[0].write_bytes(b"\x80\x04pickle")
    for _ in range(2):  # the second time, it was set aside before
        with pytest.raises(UserError, match=r"no intact checkpoint is left .*step-000000001") as bad:
            store.newest()
        assert bad.value.status == ExitStatus.BAD_DATA


def test_only_unreadable_checkpoints_is_a_separate_error(store: CheckpointDir):
    """Unreadable checkpoints are reported with another error and exit status than damaged ones."""
    (store.folder / "step-000000002.safetensors").mkdir()
    with pytest.raises(UserError, match=r"no checkpoint can be read: .*000002.safetensors: .*Is a directory") as error:
        store.newest()
    assert error.value.status == ExitStatus.NO_INPUT


def test_three_intact_ones_are_kept_besides_unreadable_ones(store: CheckpointDir):
    for step in (8, 9):
        (store.folder / f"step-{step:09d}.safetensors").mkdir()
    for step in (1, 2, 3, 4):
        store.commit(step, data(step))
    assert [p.name for p in store.paths() if p.is_file()] == [f"step-{k:09d}.safetensors" for k in (4, 3, 2)]


def test_the_last_checkpoint_has_a_stable_name(store: CheckpointDir):
    """The name takes no space, is not taken for a checkpoint, and is replaced when the run is trained further."""
    final = store.folder / FINAL
    for step in (1, 2):
        store.commit(step, data(step))
        for _ in range(2):  # the second time, the name exists
            store.name_final(step)
        assert final.samefile(store.paths()[0])
        assert unpack(final.read_bytes(), "").facts["step"] == step
    assert [path.name for path in store.paths()] == ["step-000000002.safetensors", "step-000000001.safetensors"]
    assert sorted(path.name for path in store.folder.iterdir()) == [FINAL, *sorted(p.name for p in store.paths())]
    final.write_bytes(b"damaged")  # and with it the checkpoint
    assert newest_step(store) == 1


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK], ids=os.strerror)
def test_without_hard_links_the_last_checkpoint_is_copied(
    store: CheckpointDir, monkeypatch: pytest.MonkeyPatch, number: int
):
    without_hard_links(monkeypatch, number)
    for step in (1, 2):
        path = store.commit(step, data(step))
        store.name_final(step)
        assert (store.folder / FINAL).read_bytes() == path.read_bytes()
        assert (store.folder / FINAL).stat().st_mode & 0o777 == 0o600
        assert not (store.folder / FINAL).samefile(path)


def test_full_disk_leaves_the_former_name_of_the_last_checkpoint(store: CheckpointDir, monkeypatch: pytest.MonkeyPatch):
    store.commit(1, data(1))
    store.name_final(1)
    store.commit(2, data(2))
    without_hard_links(monkeypatch, errno.ENOSPC)
    with pytest.raises(UserError, match=r"final.safetensors: cannot be written, 0.0 MB .*No space left") as error:
        store.name_final(2)
    assert error.value.status == ExitStatus.CANNOT_WRITE
    assert unpack((store.folder / FINAL).read_bytes(), "").facts["step"] == 1


def test_checkpoints_are_written_where_folders_cannot_be_synced(store: CheckpointDir, monkeypatch: pytest.MonkeyPatch):
    without_synced_folders(monkeypatch)
    store.commit(1, data(1))
    assert newest_step(store) == 1


def test_planted_symlink_is_not_followed(store: CheckpointDir, tmp_path: Path):
    victim = tmp_path / "victim"
    victim.write_text("mine")
    partial_of(store.folder / "step-000000001.safetensors").symlink_to(victim)
    store.commit(1, data(1))
    assert victim.read_text() == "mine"
    assert newest_step(store) == 1


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("error", FAULTS)
def test_failure_at_any_operation_loses_no_committed_checkpoint(tmp_path: Path, error: BaseException, after: bool):
    count = len(commit_with_fault(with_three(tmp_path / "count"), -1, error, after))
    assert count > 8
    for number in range(count):
        store = with_three(tmp_path / f"{number}")
        log = commit_with_fault(store, number, error, after)
        acknowledged = "failed" not in log
        step = newest_step(store)
        assert step == 4 or (step == 3 and not acknowledged), (number, log)
        if isinstance(error, OSError):
            assert not acknowledged or log[number] in ("unlink", "close"), (number, log)
        remove_partials(store.folder, "*.safetensors*")
        assert not list(store.folder.glob("*.partial"))
        store.commit(5, data(5))  # leftover files do not prevent the next commit
        assert newest_step(store) == 5
        assert len(store.paths()) == 3


def test_file_is_synced_before_the_rename_and_the_folder_after_it(store: CheckpointDir):
    operations = commit_with_fault(store, -1, CrashError(), False)
    log = [name for name in operations if name in ("write", "fsync", "read", "replace")]
    assert log == ["write", "fsync", "read", "replace", "fsync"]


def test_old_checkpoints_are_removed_after_the_commit_of_the_new_one(store: CheckpointDir):
    for step in (0, 1, 2):
        store.commit(step, data(step))
    removed: List[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("lstm_dist.run.checkpoint_dir.sync_folder", lambda _: removed.append("synced"))
        patch.setattr(Path, "unlink", lambda self, **_: removed.append(self.name))
        store.commit(3, data(3))
    assert [name for name in removed if not name.endswith(".partial")] == ["synced", "step-000000000.safetensors"]


def test_full_disk_is_reported_in_one_line_and_leaves_no_file(store: CheckpointDir, monkeypatch: pytest.MonkeyPatch):
    store.commit(1, data(1))

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(
        UserError, match=r"step-000000002.safetensors: cannot be written, 0.0 MB .*No space left"
    ) as error:
        store.commit(2, data(2))
    assert error.value.status == ExitStatus.CANNOT_WRITE
    assert [p.name for p in store.folder.iterdir()] == ["step-000000001.safetensors"]
