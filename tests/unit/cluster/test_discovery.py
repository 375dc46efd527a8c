"""The program that prints hosts: what it may print, and what happens if it does something else."""

import time
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.cluster.discovery import Discovery
from lstm_dist.cluster.hosts import Host
from lstm_dist.errors import UserError
from tests.support.network import wait_until


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str], str]:
    """Return a function that writes a shell script, and returns its path."""

    def write(script: str) -> str:
        path = tmp_path / "hosts.sh"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
        return str(path)

    return write


def test_hosts_are_read(program: Callable[[str], str]):
    path = program("printf 'node1:2\\n\\n  node2 \\nnode3:4\\n'; echo hello >&2")
    assert Discovery(path).hosts() == [Host("node1", 2), Host("node2", 1), Host("node3", 4)]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("echo no network >&2; exit 3", "has failed with status 3 (no network)"),
        ("exit 1", "has failed with status 1 (no message)"),
        ("echo node1:2; echo what is this", "'what is this' should be a host and its number of workers"),
        ("echo node1:0", "'node1:0' should be a host and its number of workers, such as node1:4"),
        ("echo node1; echo node1", "node1 is listed twice"),
        ("echo -oProxyCommand=x", "'-oProxyCommand=x' should be a host"),
        ("printf '\\377\\376'", "should be a host"),
        ("true", "has printed no host: it should print lines such as node1:4"),
    ],
)
def test_anything_else_is_one_line(program: Callable[[str], str], script: str, message: str):
    path = program(script)
    with pytest.raises(UserError) as caught:
        Discovery(path).hosts()
    assert str(caught.value).startswith(f"--discover-hosts {path}: ")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_program_that_cannot_be_started_is_reported(tmp_path: Path):
    with pytest.raises(UserError, match=r"/absent: cannot be started \(No such file or directory\)$"):
        Discovery(f"{tmp_path}/absent").hosts()
    with pytest.raises(UserError, match=r": cannot be started \(Permission denied\)$"):
        Discovery(str(tmp_path)).hosts()


def test_program_that_hangs_is_killed_with_what_it_has_started(program: Callable[[str], str], tmp_path: Path):
    path = program(f"sleep 600 & echo $! >{tmp_path}/pid; wait")
    began = time.monotonic()
    with pytest.raises(UserError, match=r"has not ended within 1 s$"):
        Discovery(path, limit=1).hosts()
    assert time.monotonic() - began < 20
    state = Path(f"/proc/{(tmp_path / 'pid').read_text().strip()}/stat")
    wait_until(lambda: not state.exists() or state.read_text().split()[2] == "Z", "the end of what it has started", 10)


def test_problem_is_reported_once_until_it_changes(program: Callable[[str], str], capsys: pytest.CaptureFixture):
    discovery = Discovery(program("exit 1"))
    assert [discovery.look(), discovery.look()] == [None, None]
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith("warning: --discover-hosts ")
    assert said.endswith("has failed with status 1 (no message); the job goes on with the hosts that it has\n")
    program("true")
    assert discovery.look() is None
    assert "has printed no host" in capsys.readouterr().err
    program("echo node1")
    assert discovery.look() == [Host("node1")]
    program("true")
    assert discovery.look() is None
    assert "has printed no host" in capsys.readouterr().err
