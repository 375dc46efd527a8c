"""jobs/report.py RUN_DIR: what the time of a run went to, from a history with known numbers."""

import csv
import json
import re
from pathlib import Path
from typing import Any, Dict, List

import pytest

from lstm_dist.errors import UserError
from lstm_dist.experiments import run_report
from lstm_dist.experiments.timeline_figures import steps_figure, workers_figure
from lstm_dist.files import claim
from lstm_dist.programs import report
from lstm_dist.run.goodput import AttemptCourse, History
from lstm_dist.run.timeline import COMMIT, END, FAILURE, FILE, START, WAITING, Event

T0 = 1.7e9
HOSTILE = "<b>|`*\x1b[31m& 'node3'. And so on. And so on"


def event(kind: str, time: float, **facts: Any) -> Dict[str, Any]:
    return {"event": kind, "time": T0 + time, **facts}


def seconds(**phases: float) -> Dict[str, float]:
    return phases


# An attempt of six workers that is killed after 150 steps, of which it has saved 100; a host that is lost; a wait; an
# attempt of four workers that is asked to stop; and one of six to the end.
EVENTS = [
    event(START, 4, began=T0, workers=6, step=0, seconds=seconds(starting=4.0), previous=None),
    event(COMMIT, 15, step=100, seconds=seconds(starting=4.0, steps=10.0, checkpoints=1.0)),
    event("host lost", 25, host=HOSTILE),
    event(WAITING, 30, workers=2, needed=4),
    event(
        START, 62, began=T0 + 60, workers=4, step=100, seconds=seconds(starting=2.0),
        previous={"state": "failed", "step": 150, "reason": HOSTILE,
                  "seconds": seconds(starting=4.0, steps=15.0, checkpoints=1.0)},
    ),
    event(COMMIT, 163, step=1100, seconds=seconds(starting=2.0, steps=100.0, checkpoints=1.0)),
    event(END, 163, state="stopped", step=1100, seconds=seconds(starting=2.0, steps=100.0, checkpoints=1.0)),
    event(START, 172, began=T0 + 170, workers=6, step=1100, seconds=seconds(starting=2.0)),
    event(COMMIT, 263, step=2000, seconds=seconds(starting=2.0, steps=90.0, checkpoints=1.0)),
]  # fmt: skip
LAST = event(END, 263, state="finished", step=2000, seconds=seconds(starting=2.0, steps=90.0, checkpoints=1.0))


def save(folder: Path, events: List[Dict[str, Any]]) -> Path:
    (folder / FILE).write_text("".join(json.dumps(line) + "\n" for line in events), encoding="utf-8")
    return folder


def rows(path: Path) -> List[Dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def parts(folder: Path) -> Dict[str, float]:
    return {row["part"]: float(row["seconds"]) for row in rows(folder / "goodput.csv")}


def test_cause_is_that_of_the_program_that_started_the_attempt(tmp_path: Path):
    """The root of the first attempt saw another worker's end; the second failure is of one that did not train."""
    causes = [event(FAILURE, 27, line="rank 1 was killed"), event(FAILURE, 40, line="no worker could start")]
    report.main([str(save(tmp_path, [*EVENTS[:4], *causes, *EVENTS[4:], LAST]))])
    assert [row["reason"] for row in rows(tmp_path / "attempts.csv")] == ["rank 1 was killed", "", ""]
    assert "Attempt 1 failed: rank 1 was killed." in (tmp_path / "report.md").read_text(encoding="utf-8")


def test_report_has_every_part_and_every_attempt(tmp_path: Path, capsys: pytest.CaptureFixture):
    report.main([str(save(tmp_path, [*EVENTS, LAST]))])
    assert parts(tmp_path) == {
        "steps": 200.0, "lost": 5.0, "starting": 8.0, "checkpoints": 3.0, "samples": 0.0, "validation": 0.0,
        "ending": 0.0, "waiting": 30.0, "between": 17.0, "all": 263.0,
    }  # fmt: skip
    attempts = rows(tmp_path / "attempts.csv")
    assert [row["workers"] for row in attempts] == ["6", "4", "6"]
    assert [float(row["began"]) for row in attempts] == [0.0, 60.0, 170.0]
    assert [(row["first_step"], row["last_step"]) for row in attempts] == [
        ("0", "150"),
        ("100", "1100"),
        ("1100", "2000"),
    ]
    assert [row["lost_steps"] for row in attempts] == ["50", "0", "0"]
    assert [row["end"] for row in attempts] == ["failed", "stopped", "finished"]
    said = capsys.readouterr().out.replace("\N{NO-BREAK SPACE}", " ")
    assert said.startswith(
        "76.0 % of the 4 min 23 s since the first start went into steps that count. Of the rest, most went to waiting "
        "for workers (11.4 %), between attempts (6.5 %) and starting (3.0 %).\nwritten: "
    )
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    markdown = (tmp_path / "report.md").read_text(encoding="utf-8")
    for text in (page, markdown):
        for words in (
            "0:02:50",
            "1,100 to 2,000",
            "finished, after step 2,000",
            "4 to 6",
            "Attempt 1 failed: ",
            "host lost",
        ):
            assert words in text
    assert page.count("<svg") == 2


def test_text_from_files_is_shown_as_text(tmp_path: Path):
    report.main([str(save(tmp_path, [*EVENTS, LAST]))])
    page, markdown = ((tmp_path / f"report.{end}").read_text(encoding="utf-8") for end in ("html", "md"))
    assert "\x1b" not in markdown
    assert "<b>" not in page + markdown
    assert "&lt;b&gt;|" in page
    assert re.search(r"Attempt 1 failed: .*'node3'\.\n", markdown), "one sentence"


def test_page_needs_no_network_and_describes_its_pictures(tmp_path: Path):
    report.main([str(save(tmp_path, [*EVENTS, LAST]))])
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert set(re.findall(r"https?://[^\s\"'<]*", page)) <= {
        "http://www.w3.org/2000/svg",
        "http://www.w3.org/1999/xlink",
    }
    labels = re.findall(r'role="img" aria-label="([^"]*)"', page)
    assert labels[0].startswith(
        "Workers by minutes since the first start, from 0.0: 6 workers, 50 steps lost; from 1.0"
    )
    assert labels[1].startswith("Steps done by minutes since the first start: 2,000 at the end")


def test_steps_of_a_running_run_count_and_those_of_a_killed_one_do_not(tmp_path: Path):
    """The status is later than the last event: 50 steps and 5 s of the last attempt are not in a checkpoint."""
    save(tmp_path, EVENTS)
    now = seconds(starting=2.0, steps=95.0, checkpoints=1.0)
    status = {"state": "running", "began": T0 + 170, "step": 2050, "seconds": now}
    (tmp_path / "status.json").write_text(json.dumps(status))
    with claim(tmp_path):
        found = run_report.read(tmp_path)
    assert (found.state, found.history.goodput().parts["steps"], found.history.goodput().steps_lost) == (
        "running",
        205,
        50,
    )
    assert run_report.end_of(found.history.attempts[-1]) == "running"
    found = run_report.read(tmp_path)
    assert (found.state, found.history.goodput().parts["steps"], found.history.goodput().steps_lost) == (
        "killed",
        200,
        100,
    )
    assert found.history.goodput().wall == 268.0


def test_run_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path):
    (tmp_path / "status.json").write_text("{}")
    with pytest.raises(UserError, match=r"has no attempts in timeline\.jsonl, as the runs of earlier versions"):
        report.main([str(tmp_path)])
    with pytest.raises(UserError, match="no such folder; give the --out of jobs/scale.py, or the directory of a run"):
        report.main([str(tmp_path / "absent")])


def many(count: int) -> List[AttemptCourse]:
    """Return attempts of a month that fail after ten checkpoints each."""
    history, began, step = History(), T0, 0
    for number in range(count):
        start = {"began": began, "workers": 2 + number % 3, "step": step, "seconds": {"starting": 5.0}}
        history.add(Event(START, began + 5, start))
        for commit in range(1, 11):
            facts = {"step": step + 100 * commit, "seconds": {"starting": 5.0, "steps": 60.0 * commit}}
            history.add(Event(COMMIT, began + 5 + 60 * commit, facts))
        began, step = began + 3600, step + 900
    return history.attempts


@pytest.mark.parametrize(("count", "unit"), [(1, "minutes"), (40, "minutes"), (700, "hours")])
def test_pictures_of_long_runs_stay_small(count: int, unit: str):
    attempts = many(count)
    for picture in (workers_figure(attempts), steps_figure(attempts)):
        assert f"{unit} since the first start" in picture.svg
        assert len(picture.svg) < 2e6
        assert len(picture.label) < 5000


def test_picture_of_a_run_that_has_just_begun():
    history = History([Event(START, T0, {"began": T0, "workers": 1, "step": 0})])
    for picture in (workers_figure(history.attempts), steps_figure(history.attempts)):
        assert "seconds since the first start" in picture.svg
