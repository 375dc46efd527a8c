"""Intervals in epochs, steps and time: what each text means, and when something is due."""

from types import SimpleNamespace
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_dist.model.control_flags import ControlFlags
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.train import interval
from lstm_dist.train.interval import NEVER, Interval, IntervalClock, Intervals, parse_interval
from lstm_dist.train.run_callbacks import GuardedCallbacks
from tests.support.fake_world import FakeWorld


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("20epochs", Interval(epochs=20)),
        ("1epoch", Interval(epochs=1)),
        ("500steps", Interval(steps=500)),
        ("1step", Interval(steps=1)),
        ("30s", Interval(seconds=30.0)),
        ("5m", Interval(seconds=300.0)),
        ("0.5h", Interval(seconds=1800.0)),
    ],
)
def test_a_text_is_one_interval(text: str, expected: Interval):
    assert parse_interval(text) == expected


@given(st.text(alphabet="0123456789.epochsteshm -+١", max_size=12))
def test_any_text_is_an_interval_above_zero_or_refused(text: str):
    try:
        found = parse_interval(text)
    except ValueError as error:
        assert "20epochs, 500steps, 30s or 5m" in str(error)  # noqa: PT017 - most texts are refused
    else:
        assert sum(value > 0 for value in found) == 1
        assert sum(found) > 0


def test_epochs_and_steps_are_due_at_their_multiples():
    epochs, steps = Interval(epochs=3), Interval(steps=4)
    assert [k for k in range(1, 13) if epochs.is_due_after_epoch(k)] == [3, 6, 9, 12]
    assert [k for k in range(1, 13) if steps.is_due_after_step(k)] == [4, 8, 12]
    for other in (NEVER, steps, Interval(seconds=1.0)):
        assert not any(other.is_due_after_epoch(k) for k in range(1, 99))
    for other in (NEVER, epochs, Interval(seconds=1.0)):
        assert not any(other.is_due_after_step(k) for k in range(1, 99))
    assert [one.is_within_epochs for one in (NEVER, epochs, steps, Interval(seconds=1.0))] == [False, False, True, True]


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """Return the clock of the module, which stands still."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(interval, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    return now


def test_a_clock_is_due_once_in_an_interval(clock: SimpleNamespace):
    one = IntervalClock(Interval(seconds=30.0))
    due: List[int] = []
    for second in range(100):
        clock.seconds = 1000.0 + second
        if one.take():
            due.append(second)
    assert due == [30, 60, 90]
    one.restart()
    clock.seconds += 29
    assert not one.take()
    assert not IntervalClock(Interval(steps=1)).take()
    assert not IntervalClock(NEVER).take()


@pytest.mark.parametrize("rank", [0, 1])
def test_only_the_root_requests_what_is_due_by_its_clock(clock: SimpleNamespace, rank: int):
    every = Intervals(Interval(seconds=10.0), Interval(seconds=20.0), Interval(seconds=30.0))
    watchdog = SimpleNamespace(beat=lambda *_: None)
    callbacks = GuardedCallbacks(FakeWorld(rank, 2), StopRequest(), watchdog, every)
    found = []
    for _ in range(3):
        clock.seconds += 10.0
        found.append(callbacks.requests())
        assert callbacks.requests() == ControlFlags(), "nothing is requested twice"
    if rank == 0:
        assert found == [
            ControlFlags(report=True),
            ControlFlags(report=True, evaluate=True),
            ControlFlags(report=True, checkpoint=True),
        ]
    else:
        assert found == [ControlFlags()] * 3
