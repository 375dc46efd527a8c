"""The workers of a job from one attempt to the next, on hosts that are lost and return."""

import itertools
from pathlib import Path
from typing import Sequence

import pytest

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import HostPool
from lstm_dist.cluster.hosts import Host
from lstm_dist.programs import crew as crew_module
from lstm_dist.programs.crew import Crew, HostCrew
from lstm_dist.programs.launch_plan import HostChanges
from lstm_dist.programs.verdict import Verdict
from lstm_dist.run import timeline
from lstm_dist.run.stop_request import PLANNED
from tests.support.fake_job import FakeJob, FakeNet

ONE, TWO, THREE = HOSTS = Host("n1", 2), Host("n2", 2), Host("n3", 2)
RANKS = ["n1", "n1", "n2", "n2", "n3", "n3"]
LOST = Verdict(76, True, "a rank exited without reporting an error", 1198)


class Scene:
    """A job on three hosts."""

    def __init__(self, run_dir: Path, wait: float = 0.3) -> None:
        self.net, self.run_dir = FakeNet(), run_dir
        self.pool = HostPool(HOSTS, self.net.ask)
        changes = HostChanges(2, wait, look_every=1000.0)
        self.crew = HostCrew(Workers(6, HOSTS), self.pool, changes, run_dir)
        self.numbers = itertools.count(1)

    def attempt(
        self, verdict: Verdict, spoken: Sequence[int] = (), step: int = 1204, checkpoint: int = 1198
    ) -> Verdict:
        """Let an attempt, which began at a checkpoint, end with a verdict, after reports of some ranks."""
        job = FakeJob(self.run_dir, next(self.numbers))
        if spoken:
            job.fails(RANKS, spoken, step)
        self.crew.watch(job, checkpoint)  # type: ignore[arg-type]
        return self.crew.judge(job, verdict)  # type: ignore[arg-type]

    def regroup(self, may_wait: bool = True) -> bool:
        return self.crew.regroup(Attempt("job", 99), lambda: may_wait)


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(crew_module, "_ASK_EVERY", 0.05)
    return Scene(tmp_path)


def test_workers_of_one_machine_stay_the_same():
    crew = Crew(Workers(3))
    assert crew.judge(None, LOST) == LOST  # type: ignore[arg-type]
    assert crew.regroup(Attempt("a", 2), lambda: True)
    assert not crew.continue_better(LOST)
    assert crew.describe("it broke", 5, "(restart 1 of 2)") == [
        "error: it broke; restarting from step 5 (restart 1 of 2)"
    ]


def test_job_continues_without_the_lost_host_and_says_so(scene: Scene):
    scene.net.down["n3"] = "it is dead"
    verdict = scene.attempt(LOST, spoken=(0, 1, 2, 3))
    assert verdict.may_restart
    assert verdict.reason == "host n3: it is dead; lost after step 1,204"
    assert scene.regroup()
    assert scene.crew.workers == Workers(4, (ONE, TWO))
    (line,) = scene.crew.describe(verdict.reason, 1198, "(restart 1 of 3)")
    assert line == "host n3 lost after step 1,204: continuing on 4 of 6 workers from step 1,198 (it is dead)"
    (event,) = timeline.read(scene.run_dir)
    assert (event.kind, event.facts) == ("workers", {"workers": 4, "line": line})


def test_loss_of_the_first_host_lets_the_second_lead(scene: Scene):
    scene.net.down["n1"] = scene.net.down["n2"] = "it is dead"
    scene.attempt(LOST, spoken=(4, 5))
    assert scene.regroup()
    assert scene.crew.workers.hosts == (THREE,)
    (line,) = scene.crew.describe("why", 1198, "")
    assert line == "hosts n1, n2 lost after step 1,204: continuing on 2 of 6 workers from step 1,198 (it is dead)"


def test_killed_worker_is_restarted_on_the_same_hosts(scene: Scene):
    verdict = scene.attempt(LOST, spoken=(0, 1, 2, 3, 4))
    assert verdict == LOST
    assert scene.regroup()
    assert scene.crew.workers == Workers(6, HOSTS)
    assert scene.crew.describe(LOST.reason, 1198, "(restart 1 of 3)") == [
        f"error: {LOST.reason}; restarting from step 1198 (restart 1 of 3)"
    ]


def test_failure_of_a_host_that_was_lost_while_horovodrun_started_is_restarted(scene: Scene):
    scene.net.down["n2"] = "it is dead"
    verdict = scene.attempt(Verdict(1, False, "", -1), checkpoint=-1)
    assert (verdict.status, verdict.may_restart, verdict.reason) == (76, True, "host n2: it is dead; lost after step 0")


def test_other_failures_are_not_restarted(scene: Scene):
    for verdict in (Verdict(70, False, "a bug", 1198), Verdict(66, False, "", 1198), Verdict(79, False, "nan", 1198)):
        assert scene.attempt(verdict) == verdict


def test_job_is_paused_for_a_host_that_is_back(scene: Scene):
    scene.net.down["n3"] = "it is dead"
    scene.attempt(LOST, spoken=(0,))
    assert scene.regroup()
    scene.crew.describe("why", 1198, "")
    stopped = Verdict(75, False, f"stopped by the file STOP ({PLANNED})", 2410)
    job = FakeJob(scene.run_dir, 2)
    scene.crew.watch(job, 1198)  # type: ignore[arg-type]
    scene.crew._watch.better = HOSTS
    assert scene.crew.judge(job, stopped) == stopped  # type: ignore[arg-type]
    assert not scene.crew.continue_better(LOST)
    by_user = stopped._replace(reason="stopped by the file STOP")
    assert not scene.crew.continue_better(by_user), "a user's request counts"
    assert scene.crew.continue_better(stopped)
    assert scene.crew.describe("", 2410, "") == ["n3 is back: continuing on 6 workers from step 2,410"]


def test_added_host_with_which_the_job_does_not_begin_is_left_out(scene: Scene):
    """Its ssh answers, but the workers do not connect; those of the attempt before are in run.json."""
    scene.net.down["n3"] = "it is dead"
    scene.attempt(LOST, spoken=(0,))
    assert scene.regroup()
    del scene.net.down["n3"]
    job = FakeJob(scene.run_dir, 2)
    scene.crew._take(HOSTS)
    scene.crew.watch(job, 1198)  # type: ignore[arg-type]
    verdict = scene.crew.judge(job, Verdict(76, True, "no worker has reported", 1198))  # type: ignore[arg-type]
    assert verdict.may_restart
    assert verdict.reason == "with n3, no worker has reported; leaving n3 out for 10 min"
    assert scene.pool.missing(HOSTS[:2]) == []


def test_lines_about_discovered_hosts(scene: Scene):
    def change(*hosts: Host) -> "list[str]":
        scene.pool.wanted = hosts
        scene.crew._take(hosts)
        return scene.crew.describe("", 7, "")

    assert change(*HOSTS, Host("n4", 1), Host("n5", 1)) == ["n4, n5 join: continuing on 8 workers from step 7"]
    assert change(ONE, TWO) == ["n3, n4, n5 no longer listed: continuing on 4 workers from step 7"]
    assert change(ONE, TWO, Host("n4", 1)) == ["n4 is back: continuing on 5 workers from step 7"]
    assert change(ONE, TWO, Host("n4", 2)) == [
        "the hosts have other numbers of workers: continuing on 6 workers from step 7"
    ]


def test_job_waits_for_workers_and_then_gives_up(scene: Scene, capsys: pytest.CaptureFixture):
    scene.net.down.update({"n1": "dead", "n2": "dead", "n3": "dead"})
    scene.attempt(LOST, spoken=(0,))
    assert not scene.regroup()
    said = capsys.readouterr().err
    assert said == "waiting up to 0 s for n1, n2, n3: 0 workers, at least 2 are needed\n"
    first, last = timeline.read(scene.run_dir)
    assert [(event.kind, event.facts["is_over"]) for event in (first, last)] == [("waiting", False), ("waiting", True)]
    assert last.time - first.time >= 0.3  # so that all of the wait counts as such
    assert scene.crew.give_up(LOST).reason == (
        f"{LOST.reason}; fewer than 2 workers within 0 s: give a longer --wait-for-workers, a lower --min-workers, or "
        "other hosts with --discover-hosts"
    )


def test_job_that_waits_continues_as_soon_as_there_are_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(crew_module, "_ASK_EVERY", 0.05)
    scene = Scene(tmp_path, wait=60.0)
    scene.net.down.update({"n1": "dead", "n2": "dead", "n3": "dead"})
    scene.attempt(LOST, spoken=(0,))
    looks = itertools.count()

    def may_wait() -> bool:
        if next(looks) == 5:
            del scene.net.down["n2"]
        return True

    assert scene.crew.regroup(Attempt("job", 2), may_wait)
    assert scene.crew.workers.hosts == (TWO,)
    assert scene.net.swept == ["n2"]  # asked for the next attempt, so that leftovers on it are ended


def test_job_that_is_to_stop_does_not_wait(tmp_path: Path):
    scene = Scene(tmp_path, wait=60.0)
    scene.net.down.update({"n1": "dead", "n2": "dead", "n3": "dead"})
    scene.attempt(LOST, spoken=(0,))
    assert not scene.regroup(may_wait=False)


def test_host_whose_workers_fail_again_and_again_is_left_out(scene: Scene, capsys: pytest.CaptureFixture):
    for number in range(3):
        assert capsys.readouterr().err == ""
        scene.attempt(LOST._replace(step=-1), spoken=(0, 1, 2, 3, 4), checkpoint=-1)  # rank 5, on n3, is silent
        assert scene.regroup()
        assert scene.crew.workers.number == (4 if number == 2 else 6)
    assert capsys.readouterr().err == "host n3 has failed 3 times in a row: leaving it out for 10 min\n"


def test_failures_with_new_checkpoints_in_between_do_not_count(scene: Scene):
    for number in range(9):
        scene.attempt(LOST._replace(step=1198 + number), spoken=(0, 1, 2, 3, 4), checkpoint=1197 + number)
    assert scene.regroup()
    assert scene.crew.workers.number == 6


def test_added_host_with_which_the_job_cannot_train_is_left_out(scene: Scene):
    """Such a host lacks the corpus, or its GPU is broken: the job had trained without it."""
    scene.crew._take((ONE, TWO))
    scene.crew._take(HOSTS)
    verdict = scene.attempt(Verdict(66, False, "", 1198))
    assert verdict.may_restart
    assert verdict.reason == "with n3, the job has failed with status 66; leaving n3 out for 10 min"
    assert scene.regroup()
    assert scene.crew.workers == Workers(4, (ONE, TWO))
    verdict = scene.attempt(Verdict(66, False, "", 1198))
    assert not verdict.may_restart


def test_leftovers_of_a_job_that_has_failed_are_ended(scene: Scene):
    scene.net.down["n3"] = "it is dead"
    scene.attempt(LOST, spoken=(0,))
    scene.crew.end(Attempt("job", 2), LOST)
    assert scene.net.swept == ["n1", "n2"]
