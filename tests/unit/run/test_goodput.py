"""Goodput of synthetic histories, whose true course is known because it was made up second by second."""

import json
import math
from typing import Any, Dict, List, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lstm_dist.run.goodput import BETWEEN, LOST, PARTS, WAIT, Goodput, History, duration
from lstm_dist.run.phase_clock import CHECKPOINTS, ENDING, PHASES, SAMPLES, STARTING, STEPS, VALIDATION
from lstm_dist.run.timeline import COMMIT, END, START, WAITING, Event

T0 = 1.7e9


class Made(NamedTuple):
    """A history: its events, and the truth about it."""

    events: List[Event]
    parts: Dict[str, float]
    wall: float
    lost: int


class Maker:
    """Makes a history up: goes through it second by second, and writes the events that a real run would write."""

    def __init__(self) -> None:
        self.now, self.step, self.committed, self.is_first = T0, 0, 0, True
        self.events: List[Event] = []
        self.parts, self.lost = dict.fromkeys(PARTS, 0.0), 0
        self.seconds: Dict[str, float] = {}
        self.uncommitted: List[float] = []
        self.previous: Any = None

    def spend(self, phase: str, seconds: float) -> None:
        self.now += seconds
        self.seconds[phase] += seconds
        if phase == STEPS:
            self.step += 1
            self.uncommitted.append(seconds)
        else:
            self.parts[phase] += seconds

    def write(self, kind: str, **facts: Any) -> None:
        self.events.append(Event(kind, self.now, json.loads(json.dumps(facts))))

    def record(self) -> Dict[str, Any]:
        return {"step": self.step, "seconds": dict(self.seconds)}

    def start(self, seconds: float, workers: int) -> None:
        self.seconds, began = dict.fromkeys(PHASES, 0.0), self.now
        self.spend(STARTING, seconds)
        self.write(START, began=began, workers=workers, previous=self.previous, **self.record())

    def commit(self, seconds: float) -> None:
        self.spend(CHECKPOINTS, seconds)
        self.write(COMMIT, **self.record())
        self.parts[STEPS] += math.fsum(self.uncommitted)
        self.committed, self.uncommitted = self.step, []

    def end(self, state: str) -> None:
        """End the attempt; the steps since its last commit are lost."""
        self.previous = self.record()
        if state:
            self.write(END, state=state, **self.record())
        self.parts[LOST] += math.fsum(self.uncommitted)
        self.lost += len(self.uncommitted)
        self.step, self.uncommitted = self.committed, []

    def pause(self, between: float, waiting: float, resting: float) -> None:
        """Pass the time between two attempts; of a wait in vain, also that until a user starts the next one."""
        self.now += between
        self.parts[BETWEEN] += between
        if waiting:
            self.write(WAITING, workers=1, needed=2)
            self.now += waiting
            self.parts[WAIT] += waiting
        if waiting and resting:
            self.write(WAITING, workers=1, needed=2, is_over=True)
            self.now += resting
            self.parts[BETWEEN] += resting


SECONDS = st.floats(0.001, 1e4)
WORK = st.one_of(
    st.tuples(st.just(STEPS), SECONDS),
    st.tuples(st.sampled_from([SAMPLES, VALIDATION]), SECONDS),
    st.tuples(st.just(COMMIT), SECONDS),
)
ATTEMPT = st.fixed_dictionaries(
    {
        "starting": SECONDS, "workers": st.integers(1, 64), "work": st.lists(WORK, max_size=30),
        "state": st.sampled_from(["", "failed", "stopped"]), "between": SECONDS,
        "waiting": st.one_of(st.just(0.0), SECONDS), "resting": st.one_of(st.just(0.0), SECONDS),
    }
)  # fmt: skip


def make(attempts: List[Dict[str, Any]]) -> Made:
    maker = Maker()
    for number, attempt in enumerate(attempts):
        maker.start(attempt["starting"], attempt["workers"])
        for what, seconds in attempt["work"]:
            if what == COMMIT:
                maker.commit(seconds)
            else:
                maker.spend(what, seconds)
        is_last = number == len(attempts) - 1
        if is_last or attempt["state"] == "stopped":
            maker.commit(0.5)
            maker.spend(ENDING, 0.25)
        maker.end("finished" if is_last else attempt["state"])
        if not is_last:
            maker.pause(attempt["between"], attempt["waiting"], attempt["resting"])
    return Made(maker.events, maker.parts, maker.now - T0, maker.lost)


@settings(deadline=None, max_examples=100)
@given(st.lists(ATTEMPT, min_size=1, max_size=6))
def test_every_second_of_a_history_is_in_its_part(attempts: List[Dict[str, Any]]):
    made = make(attempts)
    found = History(made.events).goodput()
    assert math.fsum(found.parts.values()) == found.wall == pytest.approx(made.wall, rel=1e-6, abs=1e-4)
    assert found.parts == pytest.approx(made.parts, rel=1e-6, abs=1e-4)  # a double of seconds since 1970 has 0.2 us
    assert (found.attempts, found.steps_lost) == (len(attempts), made.lost)
    assert min(found.parts.values()) >= 0
    assert 0 <= found.fraction <= 1


@settings(deadline=None, max_examples=100)
@given(st.lists(ATTEMPT, min_size=1, max_size=4), st.data())
def test_beginning_of_a_history_has_the_time_until_its_last_event(attempts: List[Dict[str, Any]], data: st.DataObject):
    """A run that is still running, or whose last lines are missing, has parts that add up as well."""
    events = make(attempts).events
    count = data.draw(st.integers(1, len(events)))
    found = History(events[:count]).goodput()
    assert found.wall == pytest.approx(events[count - 1].time - T0, rel=1e-6, abs=1e-4)
    assert min(found.parts.values()) >= -1e-6


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 9), st.floats(), st.text(max_size=3)),
    lambda inner: st.dictionaries(st.sampled_from(["step", "seconds", *PHASES]), inner, max_size=4),
    max_leaves=8,
)
FACTS = st.dictionaries(st.sampled_from(["began", "workers", "step", "seconds", "previous", "state", "is_over"]), JSON)


@settings(deadline=None, max_examples=200)
@given(st.lists(st.tuples(st.sampled_from([START, COMMIT, END, WAITING, "lost"]), st.floats(0, 1e6), FACTS)))
def test_events_that_make_no_sense_give_a_goodput_that_adds_up(events: List[Any]):
    found = History(Event(*event) for event in events).goodput()
    assert math.fsum(found.parts.values()) == found.wall
    assert set(found.parts) == set(PARTS)
    assert 0 <= found.fraction <= 1
    assert found.describe().startswith("goodput ")


def begin(time: float, step: int, **facts: Any) -> Event:
    return Event(START, time + 2, {"began": time, "workers": 2, "step": step, "seconds": {STARTING: 2.0}, **facts})


def commit(time: float, step: int, steps: float) -> Event:
    return Event(COMMIT, time, {"step": step, "seconds": {STARTING: 2.0, STEPS: steps}})


def test_checkpoint_that_could_not_be_read_again_costs_its_steps_in_proportion():
    """Of the steps 0 to 100 and 100 to 200, an attempt that continues after step 150 repeats 50."""
    events = [begin(0, 0), commit(12, 100, 10.0), commit(32, 200, 30.0), begin(42, 150)]
    found = History(events).goodput()
    assert (found.parts[STEPS], found.parts[LOST], found.steps_lost) == (20.0, 10.0, 50)
    assert (found.parts[BETWEEN], found.wall) == (10.0, 44.0)


def test_steps_are_lost_again_by_a_later_attempt_that_continues_earlier():
    events = [begin(0, 0), commit(12, 100, 10.0), begin(20, 100), commit(32, 200, 10.0), begin(40, 0)]
    found = History(events).goodput()
    assert (found.parts[STEPS], found.parts[LOST], found.steps_lost) == (0.0, 20.0, 200)


def test_pause_after_the_last_epoch_is_not_counted():
    """A run that is trained longer a week later has had nothing to do for a week."""
    end = Event(END, 13.0, {"state": "finished", "step": 100, "seconds": {STARTING: 2.0, STEPS: 10.0, ENDING: 1.0}})
    events = [begin(0, 0), commit(12, 100, 10.0), end, begin(6e5, 100), commit(6e5 + 12, 200, 10.0)]
    found = History(events).goodput()
    assert (found.parts[STEPS], found.parts[BETWEEN], found.wall) == (20.0, 0.0, 25.0)


def test_clock_of_another_host_that_is_late_makes_no_part_negative():
    events = [begin(0, 0), commit(12, 100, 10.0), begin(11, 100)]
    assert History(events).goodput().parts == {**dict.fromkeys(PARTS, 0.0), STARTING: 4.0, STEPS: 10.0}


def test_sleep_of_the_machine_is_not_time_of_its_phases():
    """A laptop that sleeps for an hour stops the clock of the phases, but not that of the wall."""
    found = History([begin(0, 0), commit(3612, 100, 10.0)]).goodput()
    assert (found.parts[STEPS], found.parts[BETWEEN], found.wall) == (10.0, 3600.0, 3612.0)


def test_steps_of_a_running_attempt_count_until_it_is_known_to_have_failed():
    facts = {"step": 150, "seconds": {STARTING: 2.0, STEPS: 15.0}}
    events = [begin(0, 0), commit(12, 100, 10.0)]
    for state, lost in (("failed", 50), ("killed", 50), ("stopped", 0)):
        found = History([*events, Event(END, 17.0, {"state": state, **facts})]).goodput()
        assert (found.steps_lost, found.parts[LOST]) == (lost, lost / 10)


def test_run_of_an_earlier_version_counts_from_its_first_event():
    found = History([begin(50, 7000), commit(62, 7100, 10.0)]).goodput()
    assert (found.wall, found.parts[STEPS], found.attempts) == (12.0, 10.0, 1)
    assert History().goodput() == Goodput(dict.fromkeys(PARTS, 0.0), 0, 0)


def test_line_names_the_largest_losses_first():
    parts = {**dict.fromkeys(PARTS, 0.0), STEPS: 930.0, STARTING: 10.0, LOST: 50.0, CHECKPOINTS: 9.8, WAIT: 0.2}
    assert Goodput(parts, 3, 1204).describe() == (
        "goodput 93.0 % of 16 min 40 s in 3 attempts: 1,204 steps lost 5.0 %, starting 1.0 %, checkpoints 1.0 %"
    )
    assert Goodput({**dict.fromkeys(PARTS, 0.0), STEPS: 3.0}, 1, 0).describe() == "goodput 100.0 % of 3 s"


def test_numbers_of_a_file_add_up_to_the_millisecond():
    parts = {**dict.fromkeys(PARTS, 0.1004), STEPS: 2.00049}
    record = Goodput(parts, 2, 3).record()
    assert record["seconds"] == round(math.fsum(record["parts"].values()), 3) == 2.8
    assert (record["attempts"], record["steps_lost"]) == (2, 3)
    assert json.loads(json.dumps(record)) == record


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "0 s"), (59.4, "59 s"), (59.6, "1 min 00 s"), (724, "12 min 04 s"), (4e6, "1,111 h 06 min")],
)
def test_duration_has_at_most_two_units(seconds: float, text: str):
    assert duration(seconds) == text
