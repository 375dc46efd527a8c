"""Names, locks and ownership of run directories."""

import os
import re
from pathlib import Path

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import claim, is_claimed
from lstm_dist.run.run_dir import new_run_dir
from lstm_dist.run.run_log import RootLog


def test_a_new_directory_is_named_after_the_time(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = [new_run_dir() for _ in range(20)]
    assert len(set(made)) == 20, "runs that start in the same second have different names"
    for path in made:
        assert path.is_dir()
        assert re.fullmatch(r"runs/\d{8}-\d{6}(-\d+)?", path.as_posix())


def test_a_directory_belongs_to_one_job_at_a_time(tmp_path: Path):
    assert not is_claimed(tmp_path / "run")
    with claim(tmp_path / "run"):
        assert is_claimed(tmp_path / "run")
        with pytest.raises(UserError, match=rf"another job is writing there \(process {os.getpid()} on ") as caught:
            claim(tmp_path / "run")
        assert caught.value.status == ExitStatus.CANNOT_CREATE
        with pytest.raises(UserError, match="another job is writing there"):
            RootLog(tmp_path / "run", overwrite=True)
    assert not is_claimed(tmp_path / "run")  # the lock is released when its holder ends
    claim(tmp_path / "run").close()


@pytest.mark.parametrize(("mode", "safe"), [(0o700, True), (0o775, True), (0o1777, True), (0o777, False)])
def test_a_folder_that_any_user_could_replace_is_refused(tmp_path: Path, mode: int, safe: bool):
    above = tmp_path / "above"
    above.mkdir()
    above.chmod(mode)
    if safe:
        claim(above / "run").close()
        return
    with pytest.raises(UserError, match=r"any user can replace it: run `chmod o-w .*above`") as caught:
        claim(above / "run")
    assert caught.value.status == ExitStatus.CANNOT_CREATE


def test_a_folder_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "run").mkdir()
    owner = os.geteuid()
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    monkeypatch.setattr("lstm_dist.files._keeps_permissions", lambda _: True)  # a new folder would belong to 12345
    if owner:
        with pytest.raises(UserError, match=f"it belongs to another user, uid {owner}"):
            claim(tmp_path / "run")
    else:
        claim(tmp_path / "run").close()  # a folder of root is accepted
        os.chown(tmp_path / "run", 54321, -1)
        with pytest.raises(UserError, match="it belongs to another user, uid 54321: give a folder of your own"):
            claim(tmp_path / "run")
