import json
import os
import time
from pathlib import Path

import pytest

from lstm_dist.run import timeline
from lstm_dist.run.timeline import COMMIT, END, FILE, START, WAITING


def test_events_are_read_as_they_were_appended(tmp_path: Path):
    before = time.time()
    first = timeline.append(tmp_path, START, workers=3, hosts=["红", "\udcff"])
    timeline.append(tmp_path, "host lost", host="node3")
    assert timeline.read(tmp_path)[0] == first
    assert [event.kind for event in timeline.read(tmp_path)] == [START, "host lost"]
    assert before <= first.time <= timeline.read(tmp_path)[1].time <= time.time()
    assert first.facts == {"workers": 3, "hosts": ["红", "\udcff"]}
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


def test_lines_that_are_no_events_are_skipped(tmp_path: Path):
    assert timeline.read(tmp_path) == []
    lines = ["", "[1]", "7", '{"event": "start"}', '{"event": "end", "time": NaN}', '{"event": "commit", "time": "x"}']
    (tmp_path / FILE).write_text("\n".join([*lines, '{"event": "commit", "time": 3, "step": 2}', '{"event": "com']))
    assert timeline.read(tmp_path) == [(COMMIT, 3.0, {"step": 2})]


def test_event_after_a_line_that_was_cut_off_is_kept(tmp_path: Path):
    (tmp_path / FILE).write_text('{"event": "commit", "ti')
    timeline.append(tmp_path, WAITING)
    timeline.append(tmp_path, END)
    assert [event.kind for event in timeline.read(tmp_path)] == [WAITING, END]


def test_each_event_is_one_write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Rank 0 and the program that started it may write at the same time."""
    written = []
    original = os.write
    monkeypatch.setattr(os, "write", lambda number, data: written.append(data) or original(number, data))
    timeline.append(tmp_path, COMMIT, step=1)
    (data,) = written
    assert data.endswith(b"\n")
    assert json.loads(data)["step"] == 1


def test_write_error_is_reported_once_and_fails_nothing(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / FILE).mkdir()
    for step in range(3):
        assert timeline.append(tmp_path, COMMIT, step=step).facts == {"step": step}
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith(f"warning: {tmp_path / FILE}: cannot be written (Is a directory): ")
    assert timeline.read(tmp_path) == []


def test_nothing_is_written_without_a_run_directory(tmp_path: Path, capsys: pytest.CaptureFixture):
    timeline.append(tmp_path / "absent", WAITING)
    assert (list(tmp_path.iterdir()), capsys.readouterr().err) == ([], "")
