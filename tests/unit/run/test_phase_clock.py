import math
import time

import pytest

from lstm_dist.run.phase_clock import CHECKPOINTS, STARTING, STEPS, PhaseClock


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch):
    """Return a clock that the test sets."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: 1e9 + now[0])
    return now


def test_every_second_since_the_start_is_in_one_phase(now):
    clock = PhaseClock(1e9 + 95.0)  # this process was started 5 s after its launcher
    for phase, seconds in ((STEPS, 2.0), (STEPS, 3.0), (CHECKPOINTS, 4.0), (STEPS, 0.5), (STEPS, 0.25)):
        now[0] += seconds
        clock.enter(phase)
    read = clock.read()
    assert read == {STARTING: 7.0, STEPS: 7.0 + 0.25, CHECKPOINTS: 0.5}
    assert math.fsum(read.values()) == now[0] - 95.0


def test_stall_since_the_last_report_is_not_counted(now):
    clock = PhaseClock(1e9 + 100.0)
    now[0] += 1.0
    clock.enter(STEPS)
    now[0] += 60.0
    assert clock.read() == {STARTING: 1.0}


def test_clock_that_was_set_back_since_the_start_does_not_count_backwards(now):
    clock = PhaseClock(1e9 + 200.0)
    now[0] += 1.0
    clock.enter(STEPS)
    assert clock.read()[STARTING] == 1.0
