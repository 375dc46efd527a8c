"""A launcher is killed if it starts no worker, or if it does not end after its workers, before they begin to train."""

from typing import Dict, List

import pytest

from lstm_dist.programs import start_watch
from lstm_dist.programs.start_watch import StartWatch

WORKER = ["python", "jobs/train.py", "--epochs=1"]
LAUNCHER = [b"sh", b"-c", b"mpirun python jobs/train.py --epochs=1"]


@pytest.fixture
def processes(monkeypatch: pytest.MonkeyPatch) -> Dict[int, List[bytes]]:
    """Return the command lines of all processes, for the test to change."""
    found = {10: LAUNCHER}
    monkeypatch.setattr(start_watch, "descendants", lambda: list(found))
    monkeypatch.setattr(start_watch, "command_line", lambda pid: found[pid])
    return found


def failures(watch: StartWatch, first: int, last: int, has_spoken: bool = True) -> List[str]:
    return [text for text in (watch.failure(float(now), has_spoken) for now in range(first, last)) if text]


def test_launcher_that_does_not_end_after_its_workers_is_killed(processes: Dict[int, List[bytes]]):
    watch = StartWatch(WORKER, 300.0, is_local=True, now=0.0)
    assert not failures(watch, 1, 5)
    processes[11] = [word.encode() for word in WORKER]
    assert not failures(watch, 5, 500)
    del processes[11]
    assert not failures(watch, 500, 514)
    assert failures(watch, 514, 516) == ["horovodrun has not ended within 15 s after its workers"]


@pytest.mark.parametrize(("limit", "until"), [(20.0, 60), (300.0, 300)])
def test_launcher_that_starts_no_worker_is_killed(processes: Dict[int, List[bytes]], limit: float, until: int):
    watch = StartWatch(WORKER, limit, is_local=True, now=0.0)
    assert processes
    assert not failures(watch, 1, until)
    assert failures(watch, until, until + 2) == [f"horovodrun has started no worker within {until} s"]


def test_invisible_workers_of_other_hosts_are_awaited_once_they_have_spoken(processes: Dict[int, List[bytes]]):
    assert processes
    assert not failures(StartWatch(WORKER, 60.0, is_local=False, now=0.0), 1, 500)
    assert failures(StartWatch(WORKER, 60.0, is_local=False, now=0.0), 1, 62, has_spoken=False)
