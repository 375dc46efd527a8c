"""The hosts of a job that is started over ssh: parsing of host lists, and checks that every host is usable.

`python -m lstm_dist.cluster.hosts PROGRAM` prints the facts of the host it runs on as JSON.
"""

import contextlib
import json
import re
import shlex
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster import provenance
from lstm_dist.errors import ExitStatus, UserError

_HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?:(?::|\s+slots=)([1-9][0-9]{0,3}))?")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}")
_CONNECT, _ANSWER = 8, 30  # seconds for ssh to connect and for the host to answer; imports without cache are slow
# No prompts, because nobody can answer them, and no unknown host keys.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={_CONNECT}")
# Messages of ssh, and their explanation for the host.
_SSH_FAILURES = (
    ("Could not resolve hostname", "its name cannot be resolved: is it spelt as in `getent hosts {0}`?"),
    ("HOST IDENTIFICATION HAS CHANGED", "its ssh key has changed: if it should have, ssh-keygen -R {0}, then ssh {0}"),
    ("Host key verification failed", "its ssh key is not known here: ssh {0} once, and look at what it shows"),
    ("Permission denied", "it does not let you in without a password: ssh-copy-id {0}"),
    ("Connection refused", "it refuses ssh: is sshd running there, and on the port of your ~/.ssh/config?"),
)


class Host(NamedTuple):
    """A host and its number of workers."""

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


class Answer(NamedTuple):
    """The reply of a host.

    Attributes:
        failure: one line on why it is not usable; empty if it is.
        is_reached: whether it was reached, even if it did not reply in time.
        facts: its versions, interfaces and code digest, if it reported them.
    """

    failure: str
    is_reached: bool = False
    facts: Optional[Dict[str, Any]] = None


def parse_hosts(text: str) -> List[Host]:
    """Return the hosts of `-H host1:4,host2:4`; a host without a number runs one worker.

    Raises:
        UserError: naming the invalid entry.
    """
    return _distinct([_parse(part.strip(), f"-H {text}") for part in text.split(",")], f"-H {text}")


def read_hostfile(path: Path) -> List[Host]:
    """Read hosts from a file, one a line, as `host1:4` or `host1 slots=4`; skip blank lines and # comments.

    Raises:
        UserError: naming the file and, where one is, the invalid line.
    """
    where = f"--hostfile {path}"
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not text", ExitStatus.BAD_CONFIG) from None
    hosts = []
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip()
        if entry:
            hosts.append(_parse(entry, f"{where}, line {number}"))
    if not hosts:
        raise UserError(f"{where}: names no host", ExitStatus.BAD_CONFIG)
    return _distinct(hosts, where)


def choose_hosts(given: Optional[str], hostfile: Optional[str]) -> List[Host]:
    """Return the hosts of `-H` or of `--hostfile`; none if neither is given.

    Raises:
        UserError: when both are given, or the given one is invalid.
    """
    if given is not None and hostfile is not None:
        raise UserError("--hostfile: give this or -H, not both")
    if given is not None:
        return parse_hosts(given)
    return [] if hostfile is None else read_hostfile(Path(hostfile))


def parse_interface(text: str) -> str:
    """Return `text` if it is a network interface's name, or several separated by commas.

    Raises:
        UserError: when it is not.
    """
    if not all(_INTERFACE.fullmatch(name) for name in text.split(",")):
        raise UserError(f"--interface '{text}': should be a network interface such as eth0; `ip -br link` lists them")
    return text


def _parse(entry: str, where: str) -> Host:
    match = _HOST.fullmatch(entry)
    if not match:
        raise UserError(f"{where}: '{entry}' should be a host and its number of workers, such as node1:4")
    return Host(match[1], int(match[2] or 1))


def _distinct(hosts: List[Host], where: str) -> List[Host]:
    names = [host.name for host in hosts]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice:
        raise UserError(f"{where}: {twice} is named twice: add up its workers")
    return hosts


def is_here(host: str) -> bool:
    """Return whether `host` is this machine, so that no ssh is needed."""
    try:  # only a local address can be bound
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, UnicodeError):
        return False
    return True


def require_fit(hosts: Sequence[Host], program: Path, interface: str = "") -> None:
    """Check that all hosts can be reached and have the same software as this one.

    Args:
        hosts: of the job.
        program: run on each host with this interpreter, at the same path.
        interface: network interfaces for communication, separated by commas; empty for any.

    Raises:
        UserError: naming the host, the problem and what to do.
    """
    here = describe(program)
    failures = [(socket.gethostname(), f) for f in _misfits(here, here, interface)]
    for host, answer in _ask_all(hosts, program):
        reasons = [answer.failure] if answer.facts is None else _misfits(answer.facts, here, interface)
        failures += [(host.name, reason) for reason in reasons]
    if failures:
        name, reason = failures[0]
        others = list(dict.fromkeys(other for other, _ in failures if other != name))
        more = f" (and something is wrong with {', '.join(others)})" if others else ""
        raise UserError(f"host {name}: {reason}{more}", ExitStatus.BAD_CONFIG)


def unreachable(hosts: Sequence[Host], program: Path) -> List[str]:
    """Return the hosts that cannot be reached over ssh, each with the reason."""
    return [f"host {host.name}: {a.failure}" for host, a in _ask_all(hosts, program) if not a.is_reached]


def describe(program: Path) -> Dict[str, Any]:
    """Return what must be the same on every host (versions, code digest), and the network interfaces."""
    process = provenance.describe_process()
    return {
        "versions": {**process["versions"], "python": process["python"]},
        "code": provenance.code_digest(program),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def _misfits(facts: Dict[str, Any], here: Dict[str, Any], interface: str) -> List[str]:
    """Return how a host differs from this one, and which interfaces it lacks."""
    theirs, ours = facts["versions"], here["versions"]
    found = [
        f"it has {name} {theirs.get(name, 'not at all')}, this host {ours.get(name, 'not at all')}: "
        "run launch/setup.sh on both"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if not found and facts["code"] != here["code"]:
        found.append("its code is not the code of this host: bring both to the same commit")
    missing = [name for name in filter(None, interface.split(",")) if name not in facts["interfaces"]]
    if missing:
        has = ", ".join(facts["interfaces"])
        found.append(f"--interface {','.join(missing)}: it has no such network interface, but {has}")
    return found


def _ask_all(hosts: Sequence[Host], program: Path) -> List[Tuple[Host, Answer]]:
    ask: Callable[[Host], Answer] = lambda host: _ask(host.name, program)  # noqa: E731 - called by the pool
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as pool:
        return list(zip(hosts, pool.map(ask, hosts)))


def _ask(host: str, program: Path) -> Answer:
    """Return the reply of a host, asked over ssh unless it is this machine."""
    question = [sys.executable, "-m", "lstm_dist.cluster.hosts", str(program)]
    command = question if is_here(host) else [*_SSH, host, shlex.join(question)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_ANSWER,
            check=False,
        )  # fmt: skip
    except FileNotFoundError:
        return Answer("there is no ssh here to reach it with: install it (Debian, Ubuntu: openssh-client)")
    except subprocess.TimeoutExpired:
        return Answer(f"it does not answer within {_ANSWER} s", True)  # ssh times out earlier if the host is down
    if done.returncode == 0:
        with contextlib.suppress(ValueError):  # a login message follows the JSON, or the host replies to any command
            return Answer("", True, json.loads(_last_line(done.stdout)))
    if done.returncode == 255:
        known = (advice.format(host) for sign, advice in _SSH_FAILURES if sign in done.stderr)
        return Answer(next(known, f"it cannot be reached over ssh ({_last_line(done.stderr)})"))
    if done.returncode in (126, 127):
        return Answer(f"it has no {sys.executable}: run launch/setup.sh there, in the same folder as here", True)
    said = _last_line(done.stderr or done.stdout)
    return Answer(f"it has another lstm_dist, or a broken one ({said}): bring both up to date", True)


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no word of why"])[-1].strip()


if __name__ == "__main__":
    print(json.dumps(describe(Path(sys.argv[1]))))
