"""Checks of hosts through a fake ssh; tests/integration/hosts has real hosts."""

import json
import os
import signal
import socket
import subprocess
import time
import uuid
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.attempt import ATTEMPT, Attempt
from lstm_dist.cluster.host_query import HostQuery, describe, require_usable
from lstm_dist.cluster.hosts import Host
from lstm_dist.cluster.process_tree import end_earlier_attempts
from lstm_dist.errors import ExitStatus, UserError
from tests.support.programs import ROOT


@pytest.fixture
def ssh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return a function that installs a shell script as ssh, first on PATH."""

    def install(script: str) -> None:
        (tmp_path / "ssh").write_text(f"#!/bin/sh\n{script}\n")
        (tmp_path / "ssh").chmod(0o755)

    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    return install


@pytest.mark.slow
def test_this_host_is_asked_for_the_code_of_this_clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "lstm_dist").mkdir()
    (tmp_path / "lstm_dist" / "__init__.py").write_text("raise ImportError('of another clone')")
    monkeypatch.chdir(tmp_path)
    require_usable([Host(socket.gethostname(), 1)], HostQuery(ROOT / "jobs" / "train.py"))


def test_ssh_neither_prompts_nor_accepts_unknown_keys(ssh: Callable[[str], None], tmp_path: Path):
    ssh(f'printf "%s\\n" "$@" >{tmp_path}/asked; exit 255')
    assert HostQuery(Path("my program.py"), limit=5).problems([Host("192.0.2.1")], Attempt("a", 3))
    asked = (tmp_path / "asked").read_text().splitlines()
    assert {"BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=4"} <= set(asked)
    assert asked[-2] == "192.0.2.1"
    assert asked[-1].endswith(" -m lstm_dist.cluster.host_query 'my program.py' a.3")


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo 'kex_exchange: what?' >&2; exit 255", "it cannot be reached over ssh (kex_exchange: what?)"),
        ("exit 255", "it cannot be reached over ssh (no message)"),
        ("exit 127", "it has no "),
        (
            "echo 'No module named lstm_dist.cluster.host_query' >&2; exit 1",
            "its lstm_dist differs or is broken (No m",
        ),
        ("echo nonsense", "its lstm_dist differs or is broken (nonsense)"),
    ],
)
def test_unusable_host_is_refused(ssh: Callable[[str], None], script: str, message: str):
    ssh(script)
    with pytest.raises(UserError) as caught:
        require_usable([Host("192.0.2.1", 4)], HostQuery(Path("x.py")))
    assert str(caught.value).startswith(f"host 192.0.2.1: {message}")
    assert caught.value.status == ExitStatus.BAD_CONFIG
    (problems,) = HostQuery(Path("x.py")).problems([Host("192.0.2.1", 4)]).values()
    assert problems[0].startswith(message)


def test_host_that_does_not_answer_in_time_is_a_problem(ssh: Callable[[str], None]):
    ssh("exec sleep 60")
    began = time.monotonic()
    hosts = [Host("192.0.2.1"), Host("198.51.100.1")]  # asked at the same time
    problems = HostQuery(Path("x.py"), limit=0.5).problems(hosts)
    assert problems == {host.name: ["it does not answer within 0.5 s"] for host in hosts}
    assert time.monotonic() - began < 20


def test_slow_host_is_waited_for_once_it_has_begun_to_reply(ssh: Callable[[str], None]):
    program = ROOT / "jobs" / "train.py"
    ssh(f"echo; sleep 1; cat <<'END'\n{json.dumps(describe(program))}\nEND")
    host, query = Host("192.0.2.1"), HostQuery(program, limit=0.5, contact=0.5)
    assert query.problems([host]) == {host.name: ["it does not answer within 0.5 s"]}
    assert query.problems([host], is_patient=True) == {host.name: []}
    ssh("exec sleep 60")
    assert query.problems([host], is_patient=True) == {host.name: ["it does not answer within 0.5 s"]}


def test_connection_of_ssh_that_stays_open_is_not_waited_for(ssh: Callable[[str], None]):
    """With ControlPersist, ssh leaves a process behind, which keeps its output open."""
    ssh("sleep 60 & echo nonsense")
    began = time.monotonic()
    (problems,) = HostQuery(Path("x.py")).problems([Host("192.0.2.1")]).values()
    assert "(nonsense)" in problems[0]
    assert time.monotonic() - began < 20


def test_leftovers_of_earlier_attempts_are_ended():
    """Neither those of the attempt itself nor those of another job are."""
    job = uuid.uuid4().hex
    marks = [f"{job}.1", f"{job}.3", f"other{job}.1"]
    sleepers = [
        subprocess.Popen(["sleep", "600"], env={**os.environ, ATTEMPT: mark}, start_new_session=True) for mark in marks
    ]
    try:
        end_earlier_attempts(Attempt(job, 3))
        assert [sleeper.poll() for sleeper in sleepers] == [-signal.SIGKILL, None, None]
    finally:
        for sleeper in sleepers:
            sleeper.kill()
            sleeper.wait()
