"""jobs/report.py RUN_DIR --trace: the events of runs with known times, by the rules of the Trace Event Format."""

import json
import shutil
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.programs import report
from lstm_dist.run.step_times import PARTS
from lstm_dist.run.timeline import COMMIT, END, FILE, START

DATA = Path(__file__).resolve().parents[2] / "data"
T0 = 1.7e9
LAYOUT = {"data": 0.001, "compute": 0.020, "wait": 0.004, "wire": 0.003, "update": 0.002}  # seconds of a step
HOSTS = ("node1", "node1", "node2", "node2")


def checked(trace: Dict[str, Any]) -> List[Dict[str, Any]]:
    """Return the events of a trace after a check of the rules that viewers rely on."""
    json.dumps(trace, allow_nan=False)
    events: List[Dict[str, Any]] = trace["traceEvents"]
    named = defaultdict(set)
    ends: Dict[Tuple[int, int], int] = {}
    for event in events:
        kind = event["ph"]
        assert kind in "XiM", "complete events, instants and names"
        assert isinstance(event["pid"], int)
        assert isinstance(event["args"], dict)
        if kind == "M":
            named[event["name"]].add((event["pid"], event.get("tid")))
            continue
        place = event["pid"], event["tid"]
        assert isinstance(event["ts"], int), "microseconds"
        assert event["ts"] >= ends.get(place, 0), "events of a thread are in order and do not overlap"
        assert event["dur"] >= 0 if kind == "X" else event["s"] == "t"
        ends[place] = event["ts"] + event.get("dur", 0)
        assert place in named["thread_name"], "threads have a name before their first event"
        assert (place[0], None) in named["process_name"]
    threads = [thread for _, thread in named["thread_name"]]
    assert len({*threads, *(process for process, _ in named["process_name"])}) == len(threads) + len(
        named["process_name"]
    ), "no two processes or threads share a number"
    return events


def tracks(events: List[Dict[str, Any]]) -> Dict[Tuple[str, str], List[Dict[str, Any]]]:
    """Return the events by the names of their process and thread, in the order of the tracks."""
    names = {
        (event["name"], event["pid"], event.get("tid")): event["args"]["name"]
        for event in events
        if event["ph"] == "M" and "name" in event["args"]
    }
    found: Dict[Tuple[str, str], List[Dict[str, Any]]] = {
        (names["process_name", process, None], name): []
        for (kind, process, _), name in names.items()
        if kind == "thread_name"
    }
    for event in events:
        if event["ph"] != "M":
            process, thread = event["pid"], event["tid"]
            place = names["process_name", process, None], names["thread_name", process, thread]
            found[place].append(event)
    return found


def line(step: int, rank: int, started: Optional[float], host: str = "", **changes: float) -> Dict[str, Any]:
    """Return a line of times.jsonl; ten steps are an epoch."""
    begin = {} if started is None else {"started": T0 + started}
    host = host or HOSTS[rank]
    return {"epoch": 1 + (step - 1) // 10, "rank": rank, "host": host, "step": step, **begin, **LAYOUT, **changes}


def save(folder: Path, lines: List[Dict[str, Any]], timeline: List[Dict[str, Any]] = []) -> Path:  # noqa: B006
    for name, records in (("times.jsonl", lines), (FILE, timeline)):
        if records:
            (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records), encoding="utf-8")
    return folder


def traced(folder: Path) -> Dict[Tuple[str, str], List[Dict[str, Any]]]:
    """Return the tracks of the trace that the program writes."""
    report.main([str(folder), "--trace"])
    return tracks(checked(json.loads((folder / "trace.json").read_bytes())))


STEPS = [line(step, rank, 0.1 * step + 0.001 * rank) for rank in range(4) for step in (5, 10, 15)]


def test_every_part_of_every_timed_step_is_an_event_of_its_worker(tmp_path: Path, capsys: pytest.CaptureFixture):
    found = traced(save(tmp_path, STEPS))
    assert list(found) == [(f"host node{1 + rank // 2}", f"worker {rank}") for rank in range(4)]
    for rank, events in enumerate(found.values()):
        assert {event["tid"] for event in events} == {1000 + rank}
        assert [event["name"] for event in events] == 3 * ["data", "compute", "wait", "communication", "update"]
        assert [event["dur"] for event in events] == 3 * [1000, 20_000, 4000, 3000, 2000]
        first = events[::5]
        assert [event["ts"] for event in first] == [1000 * rank, 500_000 + 1000 * rank, 1_000_000 + 1000 * rank]
        assert [(event["args"]["step"], event["args"]["epoch"]) for event in first] == [(5, 1), (10, 1), (15, 2)]
        assert [event["ts"] - events[0]["ts"] for event in events[:5]] == [0, 1000, 21_000, 25_000, 28_000]
    said = capsys.readouterr().out
    assert said.startswith(f"written: {tmp_path}/trace.json, 3 timed steps of 4 workers on 2 hosts: open it in")
    about = json.loads((tmp_path / "trace.json").read_bytes())["otherData"]
    assert about["begins"].startswith("2023-11-14T22:13:20.5")
    assert "clocks" in about


def test_attempts_checkpoints_and_other_events_have_tracks_of_their_own(tmp_path: Path):
    """Two attempts: the first begins half a second before the first timed step, and is killed 8 s later."""
    began = T0

    def event(kind: str, time: float, **facts: Any) -> Dict[str, Any]:
        return {"event": kind, "time": began + time, **facts}

    previous = {"state": "failed", "step": 12, "reason": "a host was lost", "seconds": {"starting": 0.4, "steps": 7.6}}
    timeline = [
        event(START, 0.4, began=began, workers=4, step=0, seconds={"starting": 0.4}),
        event(COMMIT, 1.5, step=10, seconds={"starting": 0.4, "steps": 1.0, "checkpoints": 0.1}),
        event(COMMIT, 3.0, step=11, seconds={"starting": 0.4, "steps": 2.3, "checkpoints": 0.3}),
        event("host lost", 8.5, host="node2"),
        event(START, 10.0, began=began + 9, workers=2, step=11, seconds={"starting": 1.0}, previous=previous),
        event(COMMIT, 11.25, step=20, seconds={"starting": 1.0, "steps": 1.0, "checkpoints": 0.25}),
        event(END, 11.25, state="finished", step=20, seconds={"starting": 1.0, "steps": 1.0, "checkpoints": 0.25}),
    ]
    found = traced(save(tmp_path, STEPS, timeline))
    assert list(found)[4:] == [("run", "attempts"), ("run", "checkpoints"), ("run", "events")]
    first, second = found["run", "attempts"]
    assert (first["name"], first["ts"], first["args"]["workers"], first["args"]["end"]) == ("attempt 1", 0, 4, "failed")
    assert (first["args"]["reason"], first["args"]["steps lost"]) == ("a host was lost", 1)
    assert (second["ts"], second["dur"], second["args"]["end"]) == (9_000_000, 2_250_000, "finished")
    checkpoints = [(event["ts"], event["dur"], event["args"]["step"]) for event in found["run", "checkpoints"]]
    assert checkpoints == [(1_400_000, 100_000, 10), (2_800_000, 200_000, 11), (11_000_000, 250_000, 20)]
    (lost,) = found["run", "events"]
    assert (lost["name"], lost["ph"], lost["ts"], lost["args"]["host"]) == ("host lost", "i", 8_500_000, "node2")
    assert found["host node1", "worker 0"][0]["ts"] == 500_000


def test_steps_of_an_earlier_version_follow_each_other(tmp_path: Path):
    """Without a time of their own, workers begin a step together, when the slowest has ended the one before."""
    lines = [line(step, rank, None, compute=0.020 + 0.010 * rank) for rank in range(2) for step in (5, 10)]
    found = traced(save(tmp_path, lines))
    assert [event["ts"] for event in found["host node1", "worker 0"][::5]] == [0, 40_000]
    assert [event["ts"] for event in found["host node1", "worker 1"][::5]] == [0, 40_000]
    about = json.loads((tmp_path / "trace.json").read_bytes())["otherData"]
    assert list(about) == ["steps"]


def test_run_of_an_earlier_version_has_a_trace(tmp_path: Path):
    shutil.copytree(DATA / "run_of_292ec5e", tmp_path / "run")
    lines = (tmp_path / "run" / "times.jsonl").read_text().splitlines()
    found = traced(tmp_path / "run")
    assert [len(events) for events in found.values()] == [len(lines) * len(PARTS)]


def test_resumed_run_may_have_steps_with_and_without_a_time(tmp_path: Path):
    found = traced(save(tmp_path, [line(5, 0, None), line(10, 0, 60.0), line(15, 0, 61.0)]))
    assert [event["ts"] for event in found["host node1", "worker 0"][::5]] == [0, 30_000, 1_000_000]


def test_clock_that_is_set_back_does_not_make_steps_overlap(tmp_path: Path):
    found = traced(save(tmp_path, [line(5, 0, 10.0), line(10, 0, 9.0), line(15, 0, 11.5)]))
    (events,) = found.values()
    assert [event["ts"] for event in events[::5]] == [1_000_000, 1_030_000, 2_500_000]
    assert [event["dur"] for event in events] == 3 * [1000, 20_000, 4000, 3000, 2000]


def test_worker_that_moves_to_another_host_has_a_track_on_each(tmp_path: Path):
    found = traced(save(tmp_path, [line(5, 0, 0.0), line(5, 1, 0.0), line(10, 0, 9.0), line(10, 1, 9.0, "node3")]))
    assert list(found) == [("host node1", "worker 0"), ("host node1", "worker 1"), ("host node3", "worker 1")]


def test_lines_that_are_cut_off_or_damaged_are_skipped(tmp_path: Path):
    with (save(tmp_path, STEPS) / "times.jsonl").open("a", encoding="utf-8") as file:
        file.write('[1]\n{"epoch": 2, "rank": 0, "host": "node1", "step": 20, "data": NaN}\n{"epoch": 2, "ra')
    assert sum(map(len, traced(tmp_path).values())) == len(STEPS) * len(PARTS)


def test_run_without_timed_steps_is_told_what_to_do(tmp_path: Path):
    (tmp_path / "status.json").write_text("{}")
    advice = r"has no timed steps in times\.jsonl: start or --resume it with --time-every 25"
    with pytest.raises(UserError, match=advice) as error:
        report.main([str(tmp_path), "--trace"])
    assert error.value.status == ExitStatus.NO_INPUT
    assert "\n" not in str(error.value)
    assert not (tmp_path / "trace.json").exists()


def test_folder_that_is_no_run_is_refused(tmp_path: Path):
    with pytest.raises(UserError, match="is not the directory of a run; give --trace one"):
        report.main([str(tmp_path), "--trace"])
    with pytest.raises(UserError, match="no such folder; give --trace one"):
        report.main([str(tmp_path / "absent"), "--trace"])
    with pytest.raises(UserError, match="--trace: give the directory of one run"):
        report.main([str(tmp_path), str(tmp_path), "--trace"])
    run = tmp_path / "points" / "weak-n002-r1" / "run"
    run.mkdir(parents=True)
    save(run, STEPS)
    with pytest.raises(UserError, match=f"holds an experiment: give --trace .*, such as {run}$"):
        report.main([str(tmp_path), "--trace"])
