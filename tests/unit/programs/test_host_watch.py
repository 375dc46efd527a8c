"""The watch over an attempt on several hosts, with a job without processes."""

import threading
import time
from pathlib import Path
from typing import Any, Dict, Iterator, List, Optional

import pytest

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import HostPool
from lstm_dist.cluster.hosts import Host
from lstm_dist.programs import host_watch
from lstm_dist.programs.host_watch import HostWatch
from lstm_dist.programs.launch_plan import HostChanges
from tests.support.fake_job import FakeJob, FakeNet
from tests.support.network import wait_until

ONE, TWO, THREE = HOSTS = Host("n1", 2), Host("n2", 2), Host("n3", 2)
SOON = 20.0


class Printed:
    """A program that prints hosts."""

    def __init__(self, *hosts: Host) -> None:
        self.hosts = list(hosts)

    def look(self) -> Optional[List[Host]]:
        return self.hosts


class Scene:
    """Three wanted hosts, a job on some of them, and the watch over it."""

    def __init__(self, run_dir: Path) -> None:
        self.net, self.job = FakeNet(), FakeJob(run_dir)
        self.pool = HostPool(HOSTS, self.net.ask)
        self.watch: Optional[HostWatch] = None

    def begin(self, *used: Host, least: int = 2, grow_in: float = 0.0, discovery: Optional[Printed] = None) -> None:
        changes = HostChanges(least, 1.0, discovery, look_every=0.05)  # type: ignore[arg-type]
        workers = Workers(sum(host.slots for host in used), used)
        self.watch = HostWatch(self.job, workers, self.pool, changes, least, time.monotonic() + grow_in)  # type: ignore[arg-type]

    def close(self) -> None:
        if self.watch:
            self.watch.close()


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Scene]:
    monkeypatch.setattr(host_watch, "_LOOK_EVERY", 0.01)
    monkeypatch.setattr(host_watch, "_ASK_EVERY", 0.05)
    scene = Scene(tmp_path)
    yield scene
    scene.close()


def test_host_that_answers_again_pauses_the_job(scene: Scene):
    scene.net.down["n3"] = "it cannot be reached over ssh (dead)"
    scene.begin(ONE, TWO)
    scene.job.has_begun = True
    assert not scene.job.asked.wait(0.5)
    del scene.net.down["n3"]
    assert scene.job.asked.wait(SOON)
    scene.close()
    assert scene.job.is_paused
    assert scene.watch.better == HOSTS


def test_job_that_is_paused_is_still_watched(scene: Scene):
    """A long validation may precede the stop; the workers may fail in it, or the only one be cut off."""
    scene.begin(ONE, TWO)
    scene.job.has_begun = True
    assert scene.job.asked.wait(SOON)
    scene.job.asked.clear()
    scene.net.down["n2"] = "it cannot be reached over ssh (dead)"
    scene.job.has_failed = True
    assert scene.job.asked.wait(SOON)
    scene.close()
    assert scene.job.abandoned == ["a host does not answer"]
    assert scene.job.pauses == 1


def test_job_is_not_paused_before_it_trains_nor_too_soon_after_a_change(scene: Scene):
    scene.begin(ONE, TWO, grow_in=0.6)
    assert not scene.job.asked.wait(0.3)
    scene.job.has_begun = True
    began = time.monotonic()
    assert scene.job.asked.wait(SOON)
    assert time.monotonic() - began > 0.2


def test_job_that_is_asked_to_stop_is_not_paused(scene: Scene):
    scene.job.is_stopping = scene.job.has_begun = True
    scene.begin(ONE, TWO)
    assert not scene.job.asked.wait(0.3)


def test_job_with_all_workers_is_not_paused(scene: Scene):
    scene.job.has_begun = True
    scene.begin(*HOSTS)
    assert not scene.job.asked.wait(0.3)


def test_host_that_is_left_out_does_not_pause_the_job(scene: Scene):
    scene.pool.leave_out(["n3"])
    scene.job.has_begun = True
    scene.begin(ONE, TWO)
    assert not scene.job.asked.wait(0.3)


@pytest.mark.parametrize(
    ("printed", "least", "better"),
    [
        ([ONE, TWO, Host("n4", 1)], 2, (ONE, TWO, Host("n4", 1))),  # a new one
        ([ONE, Host("n2", 4)], 2, (ONE, Host("n2", 4))),  # more workers of a known one
        ([TWO], 2, (TWO,)),  # one has to be given back
        ([TWO], 3, None),  # but the other is not enough
        ([ONE, TWO], 2, None),
        ([TWO, ONE], 2, None),
    ],
)
def test_discovered_hosts_pause_the_job(scene: Scene, printed: List[Host], least: int, better: Optional[tuple]):
    scene.job.has_begun = True
    scene.begin(ONE, TWO, least=least, discovery=Printed(*printed))
    assert scene.job.asked.wait(SOON if better else 0.3) == bool(better)
    scene.close()
    assert scene.watch.better == better


def test_all_hosts_are_asked_as_soon_as_a_worker_has_failed(scene: Scene):
    scene.net.down["n2"] = "it cannot be reached over ssh (dead)"
    scene.job.has_begun = scene.job.has_failed = True
    scene.begin(ONE, TWO)
    assert scene.job.asked.wait(SOON)
    scene.close()
    assert scene.job.abandoned == ["a host does not answer"]
    assert scene.watch.answers.usable == (ONE, THREE)


def test_launcher_ends_by_itself_if_all_hosts_answer(scene: Scene):
    scene.net.down["n3"] = "it was not in use"
    scene.job.has_begun = scene.job.has_failed = True
    scene.begin(ONE, TWO)
    assert not scene.job.asked.wait(0.3)
    scene.close()
    assert scene.watch.answers.usable == (ONE, TWO)


def test_job_that_starts_is_abandoned_if_a_host_twice_does_not_answer(scene: Scene):
    scene.net.down["n2"] = "it cannot be reached over ssh (dead)"
    scene.begin(ONE, TWO)
    assert scene.job.asked.wait(SOON)
    assert scene.job.abandoned[0] == "host n2: it cannot be reached over ssh (dead)"


def test_one_question_without_an_answer_is_no_loss(scene: Scene, monkeypatch: pytest.MonkeyPatch):
    asked: List[int] = []

    def ask(hosts: List[Host], *_: object) -> Dict[str, List[str]]:
        asked.append(1)
        return {host.name: ["it cannot be reached over ssh (slow)"] * (len(asked) % 2) for host in hosts}

    monkeypatch.setattr(scene.pool, "_ask", ask)
    scene.begin(ONE, TWO)
    assert not scene.job.asked.wait(0.5)
    scene.close()
    assert len(asked) > 2


def test_only_worker_is_watched_while_it_trains(scene: Scene):
    alone = Host("n9", 1)
    scene.net.down["n9"] = "it cannot be reached over ssh (dead)"
    scene.pool.wanted = (alone,)
    scene.job.has_begun = True
    scene.begin(alone)
    assert scene.job.asked.wait(SOON)
    assert scene.job.abandoned[0] == "host n9: it cannot be reached over ssh (dead)"


def test_leftovers_of_earlier_attempts_are_ended_while_the_job_starts(scene: Scene):
    scene.begin(ONE, TWO)
    scene.close()
    assert scene.net.swept == []
    scene.job = FakeJob(scene.job.run_dir, number=2)
    scene.begin(ONE, TWO)
    wait_until(lambda: scene.net.swept == ["n1", "n2"], "the end of leftovers", SOON)


@pytest.fixture
def hanging(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Let host n3, which is missing, neither answer nor refuse until the end of the test; return when it is asked."""
    asked, is_over = threading.Event(), threading.Event()

    def ask(hosts: List[Host], *rest: Any) -> Dict[str, List[str]]:
        if hosts == [THREE]:
            asked.set()
            is_over.wait(60)
        return scene.net.ask(hosts, *rest)

    monkeypatch.setattr(scene.pool, "_ask", ask)
    scene.job.has_begun = True
    scene.begin(ONE, TWO)
    assert asked.wait(SOON)
    yield asked
    is_over.set()


def test_failure_does_not_wait_for_a_host_that_hangs(scene: Scene, hanging: threading.Event):
    assert hanging
    scene.net.down["n2"] = "it is dead"
    scene.job.has_failed = True
    assert scene.job.asked.wait(SOON)
    assert scene.job.abandoned == ["a host does not answer"]
    assert set(scene.watch.answers.problems) == {"n2"}


def test_end_of_the_job_does_not_wait_for_a_host_that_hangs(scene: Scene, hanging: threading.Event):
    assert hanging
    began = time.monotonic()
    scene.close()
    assert time.monotonic() - began < SOON


def test_watch_that_is_over_does_not_pause_the_job(scene: Scene):
    """A thread that finds more workers at this moment would pause the next attempt."""
    scene.begin(ONE, TWO)
    scene.close()
    scene.watch._act(scene.job.pause)
    assert not scene.job.is_paused
