"""jobs/report.py --export: the exported files are in the formats of MLPerf and Extra-P, and hold what was measured."""

import json
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lstm_dist.errors import UserError
from lstm_dist.programs import report
from lstm_dist.run import timeline
from tests.support.scaling_results import GRADIENTS, LAW, LINK, SINGLE, SPREAD, network, point, save, scaling_point

BEGAN = 1_700_000_000.0  # seconds since 1970
EPOCHS = (
    {"epoch": 1, "step": 10, "loss": 5.0, "chars_per_sec": 900.0, "seconds": 2.0, "valid_perplexity": None},
    {"epoch": 2, "step": 20, "loss": 4.5, "chars_per_sec": 1000.0, "seconds": 3.5, "valid_perplexity": 120.0},
)


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let events of a timeline happen at a known time."""
    monkeypatch.setattr(timeline.time, "time", lambda: BEGAN + 9)


def save_run(run_dir: Path, state: str = "finished") -> Path:
    """Write the files of a run of two epochs that was 1.25 s old when its first step began."""
    run_dir.mkdir(parents=True)
    config = {"seed": 3, "global_batch_size": 32, "seq_len": 35, "learning_rate": 0.5, "max_norm": 5.0}
    ranks = [{"host": "one", "gpu": "", "processor": "A chip"}] * 2
    files: Dict[str, Any] = {
        "config.json": config,
        "run.json": {"started": "2023-11-14T22:13:21+00:00", "workers": 2, "ranks": ranks},
        "status.json": {"state": state, "step": 20},
    }
    for name, content in files.items():
        (run_dir / name).write_text(json.dumps(content))
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(epoch) + "\n" for epoch in EPOCHS))
    timeline.append(run_dir, timeline.START, step=0, began=BEGAN, workers=2, seconds={"starting": 1.0})
    timeline.append(run_dir, timeline.COMMIT, step=0, seconds={"starting": 1.25, "checkpoints": 0.1})
    timeline.append(run_dir, timeline.END, step=20, seconds={"starting": 1.25, "steps": 3.4}, state=state)
    return run_dir


def events(log: Path) -> List[Dict[str, Any]]:
    """Return the events of a log, each line of which has the fields of mlperf-logging."""
    lines = log.read_text(encoding="utf-8").splitlines()
    assert all(line.startswith(":::MLLOG {") for line in lines)
    found = [json.loads(line[len(":::MLLOG ") :]) for line in lines]
    for event in found:
        assert list(event) == ["namespace", "time_ms", "event_type", "key", "value", "metadata"]
        assert isinstance(event["time_ms"], int)
        assert {"file", "lineno"} <= set(event["metadata"])
    return found


def test_log_of_a_run_has_its_settings_epochs_and_times(tmp_path: Path, capsys: pytest.CaptureFixture):
    run_dir = save_run(tmp_path / "run")
    report.main([str(run_dir), "--export=mlperf"])
    assert capsys.readouterr().out.rstrip().endswith(f", {run_dir}/mlperf.log")
    found = events(run_dir / "mlperf.log")
    told = {event["key"]: event["value"] for event in found if event["event_type"] == "POINT_IN_TIME"}
    assert (told["seed"], told["global_batch_size"], told["opt_base_learning_rate"]) == (3, 32, 0.5)
    assert told["submission_platform"] == "2 workers on 1 host: A chip"
    timed = [(event["key"], event["time_ms"] - 1000 * BEGAN, event["metadata"].get("epoch_num")) for event in found]
    assert [event for event in timed if event[0].endswith(("_start", "_stop"))] == [
        ("init_start", 0, None), ("init_stop", 1250, None), ("run_start", 1250, None),
        ("epoch_start", 1250, 1), ("epoch_stop", 3250, 1), ("epoch_start", 3250, 2), ("epoch_stop", 4750, 2),
        ("run_stop", 4750, None),
    ]  # fmt: skip
    stats = [event for event in found if event["key"] == "tracked_stats"]
    assert [event["value"]["throughput"] for event in stats] == [900.0, 1000.0]
    assert [event["metadata"]["step"] for event in stats] == [10, 20]
    assert [event["value"] for event in found if event["key"] == "eval_accuracy"] == [120.0]
    assert found[-1]["metadata"]["status"] == "success"


def test_log_of_a_run_with_reports_inside_epochs_has_them_between_start_and_stop(tmp_path: Path):
    run_dir = save_run(tmp_path / "run")
    reports: List[Dict[str, Any]] = [
        {"epoch": 0.5, "step": 5, "steps": 5, "loss": 5.5, "chars_per_sec": 800.0, "seconds": 1.0},
        {"epoch": 1, "step": 10, "steps": 5, "loss": 4.7, "chars_per_sec": 850.0, "seconds": 1.5},
        EPOCHS[0],
        {"epoch": 2, "step": 20, "steps": 10, "loss": 4.6, "chars_per_sec": 900.0, "seconds": 3.0},
        EPOCHS[1],
        {"epoch": 2.5, "step": 25, "steps": 5, "loss": 4.4, "chars_per_sec": 900.0, "seconds": 5.0},
    ]
    reports[3]["valid_perplexity"] = 120.0
    (run_dir / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in reports))
    report.main([str(run_dir), "--export=mlperf"])
    found = [event for event in events(run_dir / "mlperf.log") if "epoch_num" in event["metadata"]]
    assert [event["key"] for event in found] == [
        "epoch_start", "tracked_stats", "tracked_stats", "tracked_stats", "epoch_stop",
        "epoch_start", "tracked_stats", "eval_accuracy", "tracked_stats", "epoch_stop", "epoch_start", "tracked_stats",
    ]  # fmt: skip
    assert [event["metadata"]["epoch_num"] for event in found] == [1] * 5 + [2] * 5 + [3] * 2
    times = [event["time_ms"] for event in found]
    assert times == sorted(times)


def test_log_of_a_stopped_run_is_that_of_an_aborted_one(tmp_path: Path):
    run_dir = save_run(tmp_path / "run", "stopped")
    report.main([str(run_dir), "--export=mlperf"])
    assert events(run_dir / "mlperf.log")[-1]["metadata"]["status"] == "aborted"


def test_every_finished_job_of_an_experiment_has_a_log(tmp_path: Path):
    failed = point("weak-n002-r2", "weak", 2, 64, 2, state="failed", status=70, message="no")
    save(tmp_path, *(scaling_point("weak", workers, 1) for workers in (1, 2)), failed)
    for name in ("weak-n001-r1", "weak-n002-r1"):
        save_run(tmp_path / "points" / name / "run")
    report.main([str(tmp_path), "--export=mlperf"])
    logs = sorted((tmp_path / "mlperf").iterdir())
    assert [path.name for path in logs] == ["weak-n001-r1.log", "weak-n002-r1.log"]
    assert all(events(log)[-1]["key"] == "run_stop" for log in logs)


def extrap(text: str) -> Dict[str, List[List[float]]]:
    """Return the values of every point by region, after a check of the format."""
    comment, parameter, points, *rest = [line for line in text.splitlines() if line]
    assert comment.startswith("# ")
    assert parameter == "PARAMETER workers"
    assert points == "POINTS (1) (2) (4)"
    found: Dict[str, List[List[float]]] = {}
    for number, line in enumerate(rest):
        word, _, values = line.partition(" ")
        if word == "REGION":
            assert rest[number + 1] == "METRIC time"
            region = found.setdefault(values, [])
        elif word == "DATA":
            assert "e" not in values, "its grammar has no exponents"
            region.append([float(value) for value in values.split()])
        else:
            assert word == "METRIC"
    assert all(len(data) == 3 for data in found.values())
    return found


def test_text_of_extrap_has_the_time_of_a_step_and_of_its_parts(tmp_path: Path):
    jobs = [scaling_point(mode, workers, repeat) for mode in ("weak", "strong") for workers in (1, 2, 4, 8)
            for repeat in (1, 2, 3)]  # fmt: skip
    report.main([str(save(tmp_path, *jobs)), "--export", "extrap"])
    weak, strong = (extrap((tmp_path / f"extrap-{mode}.txt").read_text()) for mode in ("weak", "strong"))
    parts = ["data", "compute", "wait", "communication", "update"]
    assert list(weak) == list(strong) == ["step", *(f"step->{part}" for part in parts)]
    for place, workers in enumerate((1, 2, 4)):  # 8 workers were oversubscribed
        step = 32 * workers * 35 / (SINGLE * LAW.speedup(workers))
        assert sorted(weak["step"][place]) == pytest.approx([step * factor for factor in SPREAD], abs=1e-8)
        wire = LINK.seconds(workers, GRADIENTS)
        assert weak["step->communication"][place] == pytest.approx([wire] * 3, abs=1e-9)
        assert strong["step->update"][place] == pytest.approx([1e-3] * 3, abs=1e-9)


def test_text_of_extrap_without_profiles_has_the_step_alone(tmp_path: Path):
    jobs = [{**scaling_point("weak", workers, 1), "times": []} for workers in (1, 2, 4)]
    report.main([str(save(tmp_path, *jobs)), "--export", "extrap"])
    assert list(extrap((tmp_path / "extrap-weak.txt").read_text())) == ["step"]


def refused(*argv: str) -> str:
    with pytest.raises(UserError) as caught:
        report.main(list(argv))
    return str(caught.value)


def test_what_cannot_be_exported_is_refused_before_anything_is_written(tmp_path: Path):
    out, run_dir = save(tmp_path / "out", scaling_point("weak", 8, 1)), save_run(tmp_path / "run")
    assert refused(str(out), "--export=mlpref") == "--export: 'mlpref' should be one of mlperf, extrap"
    assert refused(str(out), str(out), "--export=extrap") == "--export: give one folder, and no --trace"
    assert refused(str(run_dir), "--export=mlperf,extrap") == (
        f"--export extrap: {run_dir} is a single run; give the --out of jobs/scale.py"
    )
    assert refused(str(out), "--export=extrap") == (
        "--export extrap: no training job has finished that was not oversubscribed; leave extrap out"
    )
    network_only = save(tmp_path / "network", network("mpi", 2))
    assert refused(str(network_only), "--export=mlperf") == (
        "--export mlperf: no training job has finished; leave mlperf out"
    )
    job = out / "points" / "weak-n008-r1" / "run"
    reason = "config.json, run.json or metrics.jsonl is missing or damaged: leave mlperf out"
    assert refused(str(out), "--export=mlperf") == f"--export mlperf: {job}: {reason}"
    for folder in (out, run_dir, network_only):
        assert not list(folder.glob("report.*"))
