"""What an attempt records in its run directory, and what the next attempt takes over from it."""

import json
import os
import time
from pathlib import Path
from typing import Any

import pytest

from lstm_dist.attempt import ATTEMPT
from lstm_dist.cluster.launch_env import BEGAN
from lstm_dist.files import claim
from lstm_dist.run import timeline
from lstm_dist.run.goodput import BETWEEN, FAILED, FINISHED, LOST, History
from lstm_dist.run.phase_clock import CHECKPOINTS, SAMPLES, STARTING, STEPS, VALIDATION
from lstm_dist.run.status import read_status
from lstm_dist.run.timeline import COMMIT, END, START
from lstm_dist.run.watchdog import PHASES as WATCHED
from lstm_dist.train.attempt_record import AttemptRecord
from tests.support.fake_world import FakeWorld


class Clock:
    """The clocks of a process, which only this test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch, self.now = monkeypatch, 1e9
        for name in ("time", "perf_counter", "monotonic"):
            monkeypatch.setattr(time, name, lambda: self.now)
        self.launch()

    def launch(self) -> None:
        """Make this the moment at which the launcher of an attempt begins."""
        self._patch.setattr("lstm_dist.cluster.launch_env.began", lambda began=self.now: began)

    def pass_by(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def work(record: AttemptRecord, clock: Clock, phase: str, seconds: float, step: int = 0) -> None:
    """Spend seconds in a phase of the watchdog, which ends after a step."""
    record.enter(phase, step)
    clock.pass_by(seconds)
    record.enter(phase, step)


def train(run_dir: Path, clock: Clock, world: FakeWorld, first: int = 0) -> AttemptRecord:
    """Start in 2 s, take 100 steps in 10 s and commit in 1 s, and take 50 more in 5 s."""
    clock.launch()
    clock.pass_by(2)
    record = AttemptRecord(run_dir, world, first)
    work(record, clock, "step", 10, first + 100)
    work(record, clock, "checkpoint", 1, first + 100)
    record.commit(first + 100, 1, "step-100.safetensors")
    work(record, clock, "step", 5, first + 150)
    return record


def test_every_phase_of_the_watchdog_is_counted(tmp_path: Path, clock: Clock):
    record = AttemptRecord(tmp_path, FakeWorld(), 0)
    for seconds, phase in enumerate(WATCHED, 1):
        work(record, clock, phase, seconds)
    record.end(FINISHED, 7)
    measured = read_status(tmp_path)["seconds"]
    assert measured == {STARTING: 1.0, STEPS: 2.0, SAMPLES: 3.0, VALIDATION: 4.0, CHECKPOINTS: 5.0}
    assert read_status(tmp_path)["goodput"]["seconds"] == 15.0


def test_root_writes_the_events_and_the_goodput(tmp_path: Path, clock: Clock):
    (tmp_path / "run.json").write_text('{"workers": 3}')
    record = train(tmp_path, clock, FakeWorld(size=3))
    record.begin_end()
    record.commit(150, 2, "step-150.safetensors")
    record.end(FINISHED, 150, epoch=2)
    events = timeline.read(tmp_path)
    assert [event.kind for event in events] == [START, COMMIT, COMMIT, END]
    assert (events[0].facts["workers"], events[0].facts["began"]) == (3, 1e9)
    assert [event.facts["step"] for event in events] == [0, 100, 150, 150]
    status: Any = read_status(tmp_path)
    assert (status["state"], status["step"], status["epoch"]) == ("finished", 150, 2)
    assert status["goodput"]["parts"][STEPS] == 15.0
    assert json.loads((tmp_path / "run.json").read_text()) == {"workers": 3, "goodput": status["goodput"]}
    assert History(events).goodput().record() == status["goodput"]


def test_status_is_kept_up_to_date_between_checkpoints(tmp_path: Path, clock: Clock):
    train(tmp_path, clock, FakeWorld())
    status = read_status(tmp_path)
    assert (status["state"], status["step"], status["checkpoint"]) == ("running", 150, "step-100.safetensors")
    assert status["goodput"]["parts"][STEPS] == 15.0


def test_next_attempt_knows_what_a_killed_one_has_lost(tmp_path: Path, clock: Clock):
    """The first attempt is killed after 150 steps, 100 of them in its checkpoint; the next one starts 20 s later."""
    train(tmp_path, clock, FakeWorld(size=2))
    clock.pass_by(20)
    record = train(tmp_path, clock, FakeWorld(size=1), first=100)
    record.end("stopped", 250)
    found = read_status(tmp_path)["goodput"]
    assert (found["attempts"], found["steps_lost"], found["seconds"]) == (2, 50, 56.0)
    assert {name: found["parts"][name] for name in (STEPS, LOST, STARTING, CHECKPOINTS, BETWEEN)} == {
        STEPS: 25.0, LOST: 5.0, STARTING: 4.0, CHECKPOINTS: 2.0, BETWEEN: 20.0,
    }  # fmt: skip


def test_surviving_rank_tells_how_an_attempt_ended(tmp_path: Path, clock: Clock):
    """Rank 0 is lost after its commit; rank 1 writes down what it has measured, without the time of the stall."""
    root = AttemptRecord(tmp_path, FakeWorld(size=2), 0)
    other = AttemptRecord(tmp_path, FakeWorld(rank=1, size=2, answers={"began": [clock.now, None]}), 0)
    other.enter("step", 0)
    work(root, clock, "step", 4, 40)
    root.commit(40, 0, "step-40.safetensors")
    work(other, clock, "step", 3, 70)
    clock.pass_by(60)
    other.end(FAILED, 70, reason="rank 1 waits for rank 0")
    assert [event.kind for event in timeline.read(tmp_path)] == [START, COMMIT]
    status = read_status(tmp_path)
    assert (status["state"], status["step"], status["reason"]) == ("failed", 70, "rank 1 waits for rank 0")
    assert (status["epoch"], status["checkpoint"]) == (0, "step-40.safetensors")
    assert status["goodput"]["parts"][STEPS] == 4.0
    clock.launch()
    AttemptRecord(tmp_path, FakeWorld(), 40)
    attempt, _ = (history := History(timeline.read(tmp_path))).attempts
    assert (attempt.state, attempt.reason) == ("failed", "rank 1 waits for rank 0")
    assert (attempt.step, attempt.lost_steps, attempt.lost_seconds) == (70, 30, 3.0)
    assert history.goodput().parts[BETWEEN] == 60.0


def test_rank_that_fails_keeps_only_facts_of_its_own_attempt(tmp_path: Path, clock: Clock):
    train(tmp_path, clock, FakeWorld())
    clock.pass_by(20)
    late = AttemptRecord(tmp_path, FakeWorld(rank=1, size=2, answers={"began": [clock.now, None]}), 100)
    late.end(FAILED, 100, reason="rank 1 waits for rank 0")
    assert not {"epoch", "checkpoint", "goodput"} & set(read_status(tmp_path))


def test_root_that_fails_keeps_its_last_checkpoint(tmp_path: Path, clock: Clock):
    record = train(tmp_path, clock, FakeWorld())
    record.end(FAILED, 150, reason="a bug")
    status = read_status(tmp_path)
    assert (status["state"], status["epoch"], status["checkpoint"]) == ("failed", 1, "step-100.safetensors")


def test_status_of_another_attempt_is_not_mistaken_for_that_of_the_last(tmp_path: Path, clock: Clock):
    train(tmp_path, clock, FakeWorld())
    status = read_status(tmp_path)
    (tmp_path / "status.json").write_text(json.dumps({**status, "began": status["began"] - 1}))
    clock.pass_by(20)
    train(tmp_path, clock, FakeWorld(), first=100)
    assert timeline.read(tmp_path)[2].facts["previous"] is None
    assert History(timeline.read(tmp_path)).goodput().steps_lost == 0


@pytest.mark.parametrize("content", ["[]", "{", '{"began": 1e9, "seconds": 7}', '{"began": "x"}'])
def test_damaged_status_does_not_keep_a_run_from_starting(tmp_path: Path, clock: Clock, content: str):
    train(tmp_path, clock, FakeWorld())
    (tmp_path / "status.json").write_text(content)
    train(tmp_path, clock, FakeWorld(), first=100)
    assert read_status(tmp_path)["goodput"]["attempts"] == 2


def test_short_run_that_was_not_restarted_says_nothing(tmp_path: Path, clock: Clock):
    record = train(tmp_path, clock, FakeWorld())
    assert record.summary() == ""
    clock.pass_by(582)
    assert record.summary() == "goodput 2.5 % of 10 min 00 s: ending 97.0 %, starting 0.3 %, checkpoints 0.2 %"
    record = train(tmp_path, clock, FakeWorld(), first=100)
    assert record.summary().startswith("goodput ")
    assert AttemptRecord(tmp_path, FakeWorld(rank=1, size=2, answers={"began": [0.0, None]}), 0).summary() == ""


def test_attempt_that_was_cut_off_leaves_the_files_of_its_successor_alone(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(ATTEMPT, "job.1")
    old = train(tmp_path, clock, FakeWorld())
    monkeypatch.setenv(ATTEMPT, "job.2")
    with claim(tmp_path):
        new = AttemptRecord(tmp_path, FakeWorld(), 100)
        (tmp_path / "run.json").write_text("{}")
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        monkeypatch.setenv(ATTEMPT, "job.1")
        old.commit(150, 2, "step-150.safetensors")
        old.end(FAILED, 150)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
        monkeypatch.setenv(ATTEMPT, "job.2")
        new.end(FINISHED, 100)
    assert [event.facts.get("state") for event in timeline.read(tmp_path)] == [None, None, None, "finished"]


def test_attempt_begins_with_its_launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(BEGAN, str(time.time() - time.perf_counter() % 1 - 3000))
    AttemptRecord(tmp_path, FakeWorld(), 0)
    (event,) = timeline.read(tmp_path)
    assert event.facts["began"] == float(os.environ[BEGAN])
    assert event.facts["seconds"][STARTING] == pytest.approx(event.time - event.facts["began"], abs=0.5)
