"""The files and the console output of a run, and which existing files a new run may replace."""

import contextlib
import fcntl
import json
import os
import re
import select
import struct
import sys
import termios
from pathlib import Path
from typing import Any, Dict, Iterator, List

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import partial_of
from lstm_dist.run import console, run_log
from lstm_dist.run.metrics_file import EpochMetrics, Metrics, StepsReport, read_metrics
from lstm_dist.run.plot import draw_perplexity
from lstm_dist.run.run_log import RUN_FILES, RootLog, RunLog


def _name_what_is_drawn(metrics: Metrics, path: Path) -> None:
    path.write_text(f"of {len(metrics.epochs)} epochs and {len(metrics.reports)} reports")


@pytest.fixture(autouse=True)
def _no_time_for_pictures(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(run_log, "draw_perplexity", _name_what_is_drawn)


def metrics(epoch: int, perplexity: float = 12.5) -> EpochMetrics:
    return EpochMetrics(epoch, 10 * epoch, 2.5, perplexity, 3.6, 0.25, 12345.6, 30.0 * epoch)


def report(step: int, perplexity: float = 12.5) -> StepsReport:
    """Return a report of the last two steps, where epochs have ten."""
    return StepsReport(step / 10, step, 2, 2.5, perplexity, 3.6, 0.25, 0.1, 12345.6, 3.0 * step)


def contents(folder: Path) -> Dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def records(path: Path) -> List[dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Return a directory with the files of a run, and with files that do not belong to it."""
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints" / "mine").mkdir(parents=True)
    for name in (
        *RUN_FILES,
        "checkpoints/step-000000009.safetensors",
        "checkpoints/step-000000009.safetensors.partial",
    ):
        (run_dir / name).write_text(f"old {name}")
    for name in ("notes.md", "checkpoints/notes.md", "checkpoints/mine/step-000000009.safetensors"):
        (run_dir / name).write_text(f"my {name}")
    return run_dir


@contextlib.contextmanager
def root_log(run_dir: Path, overwrite: bool = False, epochs: int = 100) -> Iterator[RootLog]:
    log = RootLog(run_dir, overwrite)
    log.start({}, {}, epochs, 1000)
    log.epoch(metrics(1), show=False)
    yield log
    log.finish()


# The run directory


def test_existing_run_is_kept_without_the_overwrite_flag(held: Path):
    before = contents(held)
    with pytest.raises(UserError, match=f"--run-dir {re.escape(str(held))}: already holds a run; .* --overwrite"):
        RootLog(held, overwrite=False)
    assert contents(held) == before


@pytest.mark.parametrize(
    "name", [*RUN_FILES, "checkpoints/step-000000009.safetensors", "checkpoints/old.safetensors.partial"]
)
def test_any_file_of_a_run_counts_as_a_run(tmp_path: Path, name: str):
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / name).write_text("old")
    with pytest.raises(UserError, match="already holds a run"):
        RootLog(tmp_path, overwrite=False)
    assert contents(tmp_path) == {name: b"old"}


def test_overwrite_removes_only_the_files_of_the_run(held: Path):
    with root_log(held, overwrite=True):
        after = contents(held)
    assert set(after) == {
        "config.json", "run.json", "metrics.jsonl", "samples.jsonl", "log.txt", "lock",
        "notes.md", "checkpoints/notes.md", "checkpoints/mine/step-000000009.safetensors",
    }  # fmt: skip
    assert all(data == f"my {name}".encode() for name, data in after.items() if "notes" in name or "mine" in name)
    assert not any(data.startswith(b"old") for data in after.values())


def test_partial_files_of_killed_processes_are_removed(held: Path):
    ours = ("run.json", "errors/rank1.json", "checkpoints/best.safetensors", "STOP")
    (held / "errors").mkdir()
    for path in [partial_of(held / name) for name in ours]:
        path.touch()
    (held / "film.mkv.partial").touch()
    RootLog(held, resumed_epochs=0).finish()
    assert [path.name for path in held.rglob("*.partial")] == ["film.mkv.partial"]


def test_new_or_foreign_directory_needs_no_overwrite_flag(tmp_path: Path):
    (tmp_path / "notes.md").write_text("mine")
    for run_dir in (tmp_path, tmp_path / "a" / "b"):
        with root_log(run_dir):
            pass
        assert (run_dir / "perplexity.png").read_text() == "of 1 epochs and 0 reports"


@pytest.mark.parametrize("obstacle", ["a folder", "a file for checkpoints", "a file", "a file above"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_unusable_run_dir_is_reported_and_left_unchanged(held: Path, obstacle: str, overwrite: bool):
    run_dir = held
    if obstacle == "a folder":
        (held / "log.txt").unlink()
        (held / "log.txt").mkdir()
    elif obstacle == "a file for checkpoints":
        (held / "checkpoints").rename(held.parent / "elsewhere")
        (held / "checkpoints").write_text("a file")
    elif obstacle == "a file":
        run_dir = held / "notes.md"
    else:
        run_dir = held / "notes.md" / "run"
    before = contents(held)
    with pytest.raises(UserError, match=f"^--run-dir {re.escape(str(run_dir))}: [^\n]*$"):
        RootLog(run_dir, overwrite)
    assert contents(held) == before


def test_garbage_after_the_last_row_is_removed_on_resume(tmp_path: Path):
    with root_log(tmp_path / "run") as log:
        log.epoch(metrics(2), show=False)
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_bytes()
    for garbage in (b"\0" * 100, b"\0" * 100 + b"\n", b'{"epoch": "x"}\n', b"[]\n", b'{"epo'):
        path.write_bytes(whole + garbage)
        log = RootLog(tmp_path / "run", resumed_epochs=2)
        assert path.read_bytes() == whole
        log.finish()


def test_run_directory_is_private(tmp_path: Path):
    with root_log(tmp_path / "run"):
        for name in ("", "checkpoints", "errors"):
            assert (tmp_path / "run" / name).stat().st_mode & 0o777 == 0o700


def test_resumed_run_has_no_missing_or_repeated_rows(tmp_path: Path):
    with root_log(tmp_path) as log:
        for epoch in (2, 3):
            log.epoch(metrics(epoch), show=False)
            log.sample(epoch, "分", "分开")
        log.say("the first part")
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 4, "st')  # truncated by a kill
    (tmp_path / "errors" / "rank1.json").write_text("{}")
    log = RootLog(tmp_path, resumed_epochs=2)
    assert not (tmp_path / "errors" / "rank1.json").exists()
    log.start({}, {}, 9, 1000)
    log.epoch(metrics(3), show=False)
    log.sample(3, "分", "分开了")
    log.finish()
    assert [line["epoch"] for line in records(tmp_path / "metrics.jsonl")] == [1, 2, 3]
    assert [line["text"] for line in records(tmp_path / "samples.jsonl")] == ["分开", "分开了"]
    assert (tmp_path / "perplexity.png").read_text() == "of 3 epochs and 0 reports"
    assert "the first part" in (tmp_path / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("epochs", "reported", "kept"),
    [
        (0, 0, []),
        (0, 8, ["2", "4", "6", "8"]),
        (0, 10, ["2", "4", "6", "8", "10"]),  # stopped between the report and the line of the epoch
        (1, 10, ["2", "4", "6", "8", "10", "epoch 1"]),
        (1, 12, ["2", "4", "6", "8", "10", "epoch 1", "12"]),
        (2, 20, ["2", "4", "6", "8", "10", "epoch 1", "12", "14", "16", "18", "20", "epoch 2"]),
    ],
)
def test_resumed_run_keeps_the_reports_up_to_its_checkpoint(
    tmp_path: Path, epochs: int, reported: int, kept: List[str]
):
    log = RootLog(tmp_path)
    for epoch in (1, 2):
        for step in range(10 * epoch - 8, 10 * epoch + 1, 2):
            log.report(report(step))
        log.epoch(metrics(epoch), show=False)
        log.sample(epoch, "分", "分开")
    (tmp_path / "times.jsonl").write_text("".join(f'{{"epoch": {1 + k // 11}, "step": {k}}}\n' for k in range(1, 21)))
    log.finish()
    step = min(20, max(10 * epochs, reported) + 1)
    log = RootLog(tmp_path, resumed_epochs=epochs, resumed_step=step, reported_step=reported)
    assert len(records(tmp_path / "times.jsonl")) == step
    found = [f"{line['step']}" if "steps" in line else f"epoch {line['epoch']}" for line in of_metrics(tmp_path)]
    assert found == kept
    assert [line["epoch"] for line in records(tmp_path / "samples.jsonl")] == list(range(1, epochs + 1))
    assert log.last_perplexity() == (12.5 if epochs else 0.0)
    log.finish()


def of_metrics(run_dir: Path) -> List[dict]:
    return records(run_dir / "metrics.jsonl")


# Console output that fails


def test_unread_output_does_not_block_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(console, "_READER_PATIENCE", 0.2)
    reader, writer = os.pipe()
    with open(writer, "w", encoding="utf-8") as stream:
        monkeypatch.setattr("sys.stdout", stream)
        with root_log(tmp_path) as log:
            for number in range(2000):
                log.say(f"{number} " + "x" * 100)
    os.close(reader)
    lines = (tmp_path / "log.txt").read_text(encoding="utf-8").splitlines()
    assert sum("x" in line for line in lines) == 2000
    assert lines.count("the output is no longer read: all further lines are in this file only") == 1


def test_closed_terminal_is_not_written_to_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ours, theirs = os.openpty()
    with open(theirs, "w", encoding="utf-8") as stdout, root_log(tmp_path / "run") as log:
        monkeypatch.setattr(log, "_console", stdout)
        os.close(ours)
        log.say("is anybody there?")
        log.say("then on")
        monkeypatch.undo()
    lines = (tmp_path / "run" / "log.txt").read_text(encoding="utf-8").splitlines()
    assert lines[:3] == [
        "is anybody there?",
        "the output is no longer read: all further lines are in this file only",
        "then on",
    ]


def test_full_disk_under_stdout_is_reported_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with open("/dev/full", "w", encoding="utf-8") as full, root_log(tmp_path / "run") as log:
        monkeypatch.setattr(log, "_console", full)
        with pytest.raises(UserError, match=r"standard output: cannot be written \(No space left") as caught:
            log.say("a line")
        assert caught.value.status == ExitStatus.CANNOT_WRITE
        monkeypatch.undo()


def test_full_disk_under_the_metrics_is_reported_in_one_line(tmp_path: Path):
    with root_log(tmp_path) as log:
        kept, log._metrics = log._metrics, open("/dev/full", "w", encoding="utf-8", buffering=1)  # noqa: SIM115
        with pytest.raises(
            UserError, match="/dev/full: cannot be written .No space left on device.; free some space"
        ) as error:
            log.epoch(metrics(2), show=False)
        assert error.value.status == ExitStatus.CANNOT_WRITE
        with contextlib.suppress(OSError):
            log._metrics.close()
        log._metrics = kept


# The files


def test_every_epoch_is_one_line_of_json(tmp_path: Path):
    with root_log(tmp_path) as log:
        log.epoch(metrics(2), show=True)
        log.epoch(metrics(3), show=False)
        assert len(records(tmp_path / "metrics.jsonl")) == 3  # written immediately, not at the end
    lines = records(tmp_path / "metrics.jsonl")
    assert [line["epoch"] for line in lines] == [1, 2, 3]
    assert (
        list(lines[0])
        == (
            "epoch step loss perplexity bits_per_char grad_norm chars_per_sec seconds valid_perplexity "
            "package_joules gpu_joules"
        ).split()
    )
    assert lines[2] == metrics(3)._asdict()


def test_every_report_is_one_line_of_json(tmp_path: Path):
    with root_log(tmp_path) as log:
        log.report(report(12))
        log.epoch(metrics(2), show=False)
        log.report(report(22)._replace(valid_perplexity=20.0))
    assert (tmp_path / "perplexity.png").read_text() == "of 2 epochs and 2 reports"
    lines = of_metrics(tmp_path)
    names = "epoch step steps loss perplexity bits_per_char grad_norm learning_rate chars_per_sec seconds"
    assert list(lines[1]) == [*names.split(), "valid_perplexity"]
    assert (lines[1]["epoch"], lines[1]["step"], lines[3]["valid_perplexity"]) == (1.2, 12, 20.0)
    expected = Metrics([metrics(1), metrics(2)], [report(12), report(22)._replace(valid_perplexity=20.0)])
    assert read_metrics(tmp_path / "metrics.jsonl") == expected


def test_config_json_and_run_json_are_written(tmp_path: Path, capfd: pytest.CaptureFixture):
    log = RootLog(tmp_path, overwrite=False)
    log.start({"corpus": "歌\udcff\x1b.txt", "prefix": ["分开"]}, {"workers": 2}, epochs=1, chars_per_epoch=10)
    assert json.loads((tmp_path / "config.json").read_bytes()) == {"corpus": "歌\udcff\x1b.txt", "prefix": ["分开"]}
    assert "分开" in (tmp_path / "config.json").read_text(encoding="utf-8")
    assert json.loads((tmp_path / "run.json").read_bytes()) == {"workers": 2}
    log.say("corpus: 歌\udcff.txt")
    log.epoch(metrics(1), show=False)
    log.finish()
    assert (tmp_path / "log.txt").read_text(encoding="utf-8").startswith("corpus: 歌\\udcff.txt\n")
    assert capfd.readouterr().out.startswith("corpus: 歌\\udcff.txt\n")


def test_perplexity_plot_is_a_png_image(tmp_path: Path):
    falling = [metrics(k, 2000.0 / k) for k in range(1, 200)]
    evaluated = [report(k, 2000.0 / k)._replace(valid_perplexity=2100.0 / k) for k in range(2, 2000, 2)]
    for of_epochs, reports in (
        ([metrics(1)], []),
        (falling, []),
        ([metrics(1, 1.0), metrics(2, 1e38)], []),
        (falling, evaluated),
        ([metrics(1)], [report(2)]),
        ([], [report(2)]),  # until the first epoch ends
    ):
        draw_perplexity(Metrics(of_epochs, reports), tmp_path / "perplexity.png")
        data = (tmp_path / "perplexity.png").read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        width, height = struct.unpack(">II", data[16:24])
        assert width > 600
        assert height > 400


def test_all_files_are_closed_at_the_end(tmp_path: Path):
    before = set(os.listdir("/proc/self/fd"))
    with root_log(tmp_path):
        assert len(set(os.listdir("/proc/self/fd")) - before) == 4
    assert set(os.listdir("/proc/self/fd")) <= before


# Console output


def test_redirected_output_has_no_progress_bar(tmp_path: Path, capfd: pytest.CaptureFixture):
    with root_log(tmp_path) as log:
        log.advance(1000)
        log.epoch(metrics(40), show=True)
        log.sample(40, "分开", "分开不分开")
        log.report(report(404)._replace(valid_perplexity=20.0))
    shown, errors = capfd.readouterr()
    assert errors == ""
    assert shown.splitlines() == [
        "epoch  40/100 | perplexity   12.50 |  3.600 bits/char | grad norm   0.25 |    12,346 chars/s | 30:00 left",
        " - 分开不分开",
        "epoch  40.40/100 | step     404 | perplexity   12.50 |  3.600 bits/char | validation   20.00"
        " | grad norm   0.25 |    12,346 chars/s | 29:48 left",
        f"everything is in {tmp_path}",
    ]
    assert (tmp_path / "log.txt").read_text(encoding="utf-8") == shown


def test_line_names_the_slowest_worker_of_the_steps_since_the_line_before(tmp_path: Path, capfd: pytest.CaptureFixture):
    def rows(step: int, waits: List[float]) -> List[Dict[str, Any]]:
        rest = {"data": 0.1, "compute": 0.5, "wire": 0.1, "update": 0.1}
        return [{"rank": rank, "host": "a", "step": step, "wait": wait, **rest} for rank, wait in enumerate(waits)]

    with root_log(tmp_path) as log:
        log.times(2, rows(25, [0.0, 0.4]))
        log.epoch(metrics(2), show=False)
        log.times(3, [*rows(50, [0.0, 0.4]), *rows(75, [0.4, 0.0])])
        log.epoch(metrics(3), show=True)
        log.times(4, rows(100, [0.4, 0.0]))
        log.epoch(metrics(4), show=True)
        log.times(5, [])
        log.epoch(metrics(5), show=True)
    lines = capfd.readouterr().out.splitlines()
    assert [line.split(" left")[1] for line in lines[:3]] == [
        " | slowest: worker 0 (67 % of 3 timed steps); wait 20 %, communication 10 %",
        " | slowest: worker 1 (100 % of 1 timed step); wait 20 %, communication 10 %",
        "",
    ]
    assert [line["step"] for line in records(tmp_path / "times.jsonl")] == [25, 25, 50, 50, 75, 75, 100, 100]


def test_control_characters_of_a_sample_are_escaped(tmp_path: Path, capfd: pytest.CaptureFixture):
    text = "分\x1b[2J\a\r\n\t\0\x7f\x9b\u202e\u2028\u3000开\\"
    with root_log(tmp_path) as log:
        log.sample(7, "分", text)
    escaped = " - 分\\x1b[2J\\x07\\r\\n\\t\\x00\\x7f\\x9b\\u202e\\u2028\u3000开\\\n"
    assert capfd.readouterr().out.startswith(escaped)
    assert (tmp_path / "log.txt").read_bytes().startswith(escaped.encode())
    assert records(tmp_path / "samples.jsonl") == [{"epoch": 7, "prefix": "分", "text": text}]


def drain(number: int) -> str:
    data = b""
    while select.select([number], [], [], 0.2)[0]:
        data += os.read(number, 65536)
    return data.decode()


def test_terminal_of_the_environment_variable_gets_bar_and_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
):
    ours, theirs = os.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    try:
        monkeypatch.setenv("LSTM_DIST_TERMINAL", os.ttyname(theirs))
        with root_log(tmp_path) as log:
            log.advance(50_000)
            log.sample(1, "分开", "分开不分开")
        log._console.close()
        shown = drain(ours)
    finally:
        os.close(ours)
        os.close(theirs)
    assert re.search(r"\r[^\r\n]*50%[^\r\n]*char/s", shown)
    assert " - 分开不分开\r\n" in shown
    assert capfd.readouterr() == ("", "")
    assert "%" not in (tmp_path / "log.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize("kind", ["a file", "nothing", "a folder"])
def test_path_that_is_not_a_terminal_is_not_written_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture, kind: str
):
    target = tmp_path / "terminal"
    if kind == "a file":
        target.write_text("precious")
    elif kind == "a folder":
        target.mkdir()
    monkeypatch.setenv("LSTM_DIST_TERMINAL", str(target))
    with root_log(tmp_path / "run") as log:
        log.say("hello")
    assert "hello\n" in capfd.readouterr().out
    assert kind != "a file" or target.read_text() == "precious"
    assert target.exists() == (kind != "nothing")


def test_other_ranks_write_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture):
    monkeypatch.chdir(tmp_path)
    log = RunLog()
    log.start({}, {}, 1, 1)
    log.say("hello")
    log.advance(1)
    log.epoch(metrics(1), show=True)
    log.report(report(2))
    log.sample(1, "分", "分开")
    log.finish()
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


# TensorBoard events


def events_of(folder: Path) -> List[Any]:
    """Return the events in a folder, parsed in the format that TensorBoard reads, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data = path.read_bytes()
        while data:
            (size,) = struct.unpack("<Q", data[:8])
            found.append(Event.FromString(data[12 : 12 + size]))
            data = data[16 + size :]
    return found


def test_epochs_and_samples_are_written_as_events_on_request(tmp_path: Path):
    log = RootLog(tmp_path / "run", with_events=True)
    log.start({}, {}, 2, 10)
    log.epoch(metrics(1), show=False)
    log.epoch(metrics(2)._replace(valid_perplexity=20.0), show=False)
    log.sample(2, "天", "天地")
    log.finish()
    found = events_of(tmp_path / "run" / "events")
    scalars = {(e.step, v.tag): v.simple_value for e in found for v in e.summary.value if v.HasField("simple_value")}
    assert scalars[1, "perplexity"] == metrics(1).perplexity
    assert scalars[2, "valid_perplexity"] == 20.0
    assert (1, "valid_perplexity") not in scalars
    assert any("sample/天" in value.tag for event in found for value in event.summary.value)
    assert not (tmp_path / "run" / "events").stat().st_mode & 0o077
    assert not (tmp_path / "run" / "events" / "steps").exists()
    again = RootLog(tmp_path / "run", overwrite=True, with_events=True)
    assert len(events_of(tmp_path / "run" / "events")) == 2, "the events of the overwritten run must be removed"
    again.finish()


def test_reports_are_written_as_events_by_step(tmp_path: Path):
    log = RootLog(tmp_path / "run", with_events=True)
    log.start({}, {}, 2, 10)
    log.report(report(6))
    log.report(report(8)._replace(valid_perplexity=20.0))
    log.epoch(metrics(1), show=False)
    log.finish()
    resumed = RootLog(tmp_path / "run", resumed_epochs=0, reported_step=6, with_events=True)
    resumed.report(report(8, 11.0))
    resumed.finish()
    folder = tmp_path / "run" / "events" / "steps"
    found = events_of(folder)
    written = [(e.step, v.tag, v.simple_value) for e in found for v in e.summary.value if "perplexity" in v.tag]
    assert written == [
        (6, "steps/perplexity", 12.5), (8, "steps/perplexity", 12.5), (8, "steps/valid_perplexity", 20.0),
        (8, "steps/perplexity", 11.0),
    ]  # fmt: skip
    assert [e.step for e in found if e.HasField("session_log")] == [1, 7], "TensorBoard discards what is from there on"
    names = {value.tag for event in events_of(folder.parent) for value in event.summary.value}
    assert not any("steps/" in name for name in names)
    again = RootLog(tmp_path / "run", overwrite=True, with_events=True)
    assert not events_of(folder)
    again.finish()


def test_missing_event_writer_leaves_the_run_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with root_log(tmp_path):
        pass
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(UserError, match="^--tensorboard: its writer is not installed: run "):
        RootLog(next(path.parent for path in before if path.name == "metrics.jsonl"), overwrite=True, with_events=True)
    assert sorted(tmp_path.rglob("*")) == before
