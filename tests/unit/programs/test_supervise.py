"""The loop over attempts, with attempts without processes and hosts that are lost and return."""

import json
import time
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import pytest

from lstm_dist.attempt import FIRST_ATTEMPT, Attempt
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.host_pool import Answers, HostPool
from lstm_dist.cluster.host_query import describe
from lstm_dist.cluster.hosts import Host
from lstm_dist.errors import UserError
from lstm_dist.programs import supervise
from lstm_dist.programs.crew import Crew, HostCrew
from lstm_dist.programs.launch_plan import TRAIN, HostChanges, parse
from lstm_dist.programs.supervise import Supervision, gather, make_crew
from lstm_dist.programs.verdict import Verdict
from lstm_dist.run import timeline
from lstm_dist.train.command_line import parse_config
from tests.support.fake_job import FakeJob, FakeNet

HOSTS = Host("n1", 2), Host("n2", 2)
RANKS = ["n1", "n1", "n2", "n2"]


class Attempts:
    """What the attempts of a job do, one after the other, and the command lines and workers that they get."""

    def __init__(self, *plan: Callable[["PlannedJob"], None]) -> None:
        self.plan, self.jobs = list(plan), []  # type: List[Callable[[PlannedJob], None]], List[PlannedJob]

    def start(
        self, command: Sequence[str], _: Dict[str, str], run_dir: Path, attempt: Attempt, began: float, *__: Any
    ) -> "PlannedJob":
        self.jobs.append(PlannedJob(self.plan.pop(0), command, run_dir, attempt, began))
        return self.jobs[-1]


class PlannedJob(FakeJob):
    """An attempt that does what is planned when it is waited for."""

    is_direct, was_killed, start_failure, held_output = False, False, "", ""
    exit_codes: Tuple[int, ...] = ()

    def __init__(
        self, act: Callable[["PlannedJob"], None], command: Sequence[str], run_dir: Path, attempt: Attempt, began: float
    ) -> None:
        super().__init__(run_dir, attempt.number)
        self.attempt, self.command, self.began, self._act, self.returncode = attempt, list(command), began, act, 1

    def wait(self) -> int:
        self._act(self)
        return self.returncode

    def commit(self, step: int) -> None:
        (self.run_dir / "checkpoints").mkdir(exist_ok=True)
        (self.run_dir / "checkpoints" / f"step-{step:09d}.safetensors").touch()
        self.says("running", step)

    def says(self, state: str, step: int, **facts: Any) -> None:
        self.state = {"state": state, "step": step, "attempt": str(self.attempt), **facts}
        (self.run_dir / "status.json").write_text(json.dumps(self.state))

    @property
    def hosts(self) -> str:
        return self.command[self.command.index("-H") + 1]


def trains_to(step: int, spoken: Sequence[int] = (0,)) -> Callable[[PlannedJob], None]:
    """Return an attempt that commits a step and then loses a worker."""

    def act(job: PlannedJob) -> None:
        job.commit(step)
        job.fails(RANKS, spoken, step + 6)

    return act


def finishes(job: PlannedJob) -> None:
    job.returncode = 0


def is_paused_at(step: int) -> Callable[[PlannedJob], None]:
    """Return an attempt that trains until it is paused, and commits."""

    def act(job: PlannedJob) -> None:
        job.has_begun = True
        assert job.asked.wait(20)
        job.commit(step)
        job.says("stopped", step, reason="the file STOP (to continue on other workers)")
        job.returncode = 75

    return act


class Scene:
    """A supervised job on two hosts."""

    def __init__(self, run_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.run_dir, self.net, self.monkeypatch = run_dir, FakeNet(), monkeypatch

    def run(self, attempts: Attempts, max_restarts: int = 1, crew: Optional[Crew] = None) -> Verdict:
        self.monkeypatch.setattr(supervise, "LauncherJob", attempts.start)
        changes = HostChanges(2, 0.2, look_every=0.05, grow_every=0.05)
        hosts = HostCrew(Workers(4, HOSTS), HostPool(HOSTS, self.net.ask), changes, self.run_dir)
        settings = parse_config([f"--run-dir={self.run_dir}"])
        return Supervision(crew or hosts, max_restarts, settings, self.run_dir).run(["--epochs=3"])


class NoSignals:
    is_stopping = False

    def forward_to(self, job: FakeJob) -> None:
        """Pass nothing on."""


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    monkeypatch.setattr(supervise, "StopSignals", NoSignals)
    return Scene(tmp_path, monkeypatch)


def test_host_is_lost_and_comes_back(scene: Scene, capsys: pytest.CaptureFixture) -> None:
    def is_cut_off(job: PlannedJob) -> None:
        scene.net.down["n2"] = "it is dead"
        trains_to(1198, spoken=(0, 1))(job)

    def takes_back(job: PlannedJob) -> None:
        del scene.net.down["n2"]
        is_paused_at(2410)(job)

    attempts = Attempts(is_cut_off, takes_back, finishes)
    assert scene.run(attempts).status == 0
    assert [job.hosts for job in attempts.jobs] == ["n1:2,n2:2", "n1:2", "n1:2,n2:2"]
    assert [job.attempt.number for job in attempts.jobs] == [1, 2, 3]
    assert len({job.attempt.job for job in attempts.jobs}) == 1
    assert [job.command[-1] for job in attempts.jobs] == ["--epochs=3", "--auto-resume", "--auto-resume"]
    assert capsys.readouterr().err.splitlines() == [
        "host n2 lost after step 1,204: continuing on 2 of 4 workers from step 1,198 (it is dead)",
        "n2 is back: continuing on 4 workers from step 2,410",
    ]


def test_attempts_of_a_requeued_job_follow_those_of_its_former_start(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So they may replace its lock. The start that the batch script has timed is that of the first one."""
    said = time.time() - 1000
    monkeypatch.setenv(FIRST_ATTEMPT, "4711.2000001")
    monkeypatch.setattr(supervise, "began", lambda: said)
    attempts = Attempts(trains_to(5), finishes)
    assert scene.run(attempts).status == 0
    assert [str(job.attempt) for job in attempts.jobs] == ["4711.2000001", "4711.2000002"]
    assert attempts.jobs[0].began == said
    assert attempts.jobs[1].began > said + 999
    assert scene.net.swept == ["n1", "n2", "n1", "n2"]


def test_planned_stop_is_no_restart(scene: Scene) -> None:
    """With a single restart allowed, the loss after the planned stop is the first failure without a checkpoint."""
    crew = HostCrew(
        Workers(2, HOSTS[:1]), HostPool(HOSTS, scene.net.ask), HostChanges(2, 0.2, None, 0.05, 0.05), scene.run_dir
    )
    attempts = Attempts(is_paused_at(7), trains_to(7, (0, 1, 2)), finishes)
    assert scene.run(attempts, crew=crew).status == 0
    assert [job.hosts for job in attempts.jobs] == ["n1:2", "n1:2,n2:2", "n1:2,n2:2"]


def test_only_restarts_without_a_new_checkpoint_count(scene: Scene) -> None:
    attempts = Attempts(trains_to(5), trains_to(6), trains_to(7), trains_to(7), trains_to(7), finishes)
    verdict = scene.run(attempts)
    assert (verdict.status, verdict.step, len(attempts.jobs)) == (76, 7, 4)


def test_job_without_restarts_names_the_lost_host_and_ends(scene: Scene) -> None:
    scene.net.down["n2"] = "it is dead"
    verdict = scene.run(Attempts(trains_to(5)), max_restarts=0)
    assert verdict.status == 76
    assert verdict.reason == "host n2: it is dead; lost after step 11"


def test_failures_of_attempts_are_in_the_timeline(scene: Scene) -> None:
    scene.net.down["n2"] = "it is dead"
    scene.run(Attempts(trains_to(5), finishes))
    failures = [event.facts["line"] for event in timeline.read(scene.run_dir) if event.kind == timeline.FAILURE]
    assert failures == ["host n2: it is dead; lost after step 11"]


def test_job_gives_up_if_too_few_workers_are_left(scene: Scene, capsys: pytest.CaptureFixture) -> None:
    scene.net.down.update(n1="it is dead", n2="it is dead")
    verdict = scene.run(Attempts(trains_to(5)))
    assert (verdict.status, verdict.step) == (76, 5)
    assert "; fewer than 2 workers within 0 s: give a longer --wait-for-workers, " in verdict.reason
    assert capsys.readouterr().err == "waiting up to 0 s for n1, n2: 0 workers, at least 2 are needed\n"


def test_job_that_is_asked_to_stop_is_not_started_again(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(NoSignals, "is_stopping", True)
    assert scene.run(Attempts(trains_to(5))).status == 76


@pytest.mark.parametrize(
    ("flags", "down", "workers"), [(["--min-workers=2"], ["n1"], 2), (["--min-workers=2"], [], 4), ([], [], 4)]
)
def test_job_starts_on_the_hosts_that_can_be_used(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture, flags: List[str], down: List[str], workers: int
) -> None:
    net = FakeNet()
    net.down.update({name: "it is dead" for name in down})
    monkeypatch.setattr(supervise.HostQuery, "problems", lambda _, hosts: net.ask(hosts, None))
    plan, _ = parse(["-H", "n1:2,n2:2", *flags])
    assert gather(plan).workers.number == workers
    assert gather(plan).ask_limit == supervise.ASK_LIMIT
    said = 2 * "".join(f"host {name}: it is dead; starting on {workers} of 4 workers\n" for name in down)
    assert capsys.readouterr().err == said


def test_host_that_never_answers_costs_five_seconds_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    """One of two hosts answers at once; the other accepts the connection, and that is all."""
    assert supervise._ask_limit(0.1) < supervise._ask_limit(100) == supervise.CONTACT < 5
    monkeypatch.setattr(supervise, "CONTACT", 0.5)
    reply = json.dumps(describe(TRAIN))
    (tmp_path / "ssh").write_text(
        f"#!/bin/sh\ncase \"$*\" in *192.0.2.1*) echo '{reply}' ;; *) exec sleep 60 ;; esac\n"
    )
    (tmp_path / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    plan, _ = parse(["-H", "192.0.2.1:2,198.51.100.1:2", "--min-workers=2"])
    began = time.monotonic()
    gathered = gather(plan)
    crew = make_crew(plan, gathered, tmp_path)
    assert isinstance(crew, HostCrew)
    problem = "it does not answer within 0.5 s"
    assert capsys.readouterr().err == f"host 198.51.100.1: {problem}; starting on 2 of 4 workers\n"
    for is_patient in (False, True):
        answers = crew._pool.ask(plan.workers.hosts, is_patient=is_patient)
        assert answers == Answers(plan.workers.hosts[:1], {"198.51.100.1": problem})
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("flags", [["--min-workers=3"], [], ["--max-restarts=5"]])
def test_job_does_not_start_below_the_least_number_of_workers(
    monkeypatch: pytest.MonkeyPatch, flags: List[str]
) -> None:
    monkeypatch.setattr(
        supervise.HostQuery,
        "problems",
        lambda _, hosts: {host.name: ["it is dead"] * (host.name == "n2") for host in hosts},
    )
    plan, _ = parse(["-H", "n1:2,n2:2", *flags])
    with pytest.raises(UserError, match="^host n2: it is dead$"):
        gather(plan)
