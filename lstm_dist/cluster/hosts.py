"""The hosts of a job that is started over ssh: how they are listed, and whether each of them can take part.

`python -m lstm_dist.cluster.hosts PROGRAM` on a host answers for it.
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
_CONNECT, _ANSWER = 8, 30  # seconds for ssh to connect, and for the host to answer: a cold file system imports slowly
# Never a question that nobody is there to answer, and no host whose key is not known: horovodrun asks for neither.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={_CONNECT}")
# What ssh says, and what that means for the host that it names.
_SSH_FAILURES = (
    ("Could not resolve hostname", "its name cannot be resolved: is it spelt as in `getent hosts {0}`?"),
    ("HOST IDENTIFICATION HAS CHANGED", "its ssh key has changed: if it should have, ssh-keygen -R {0}, then ssh {0}"),
    ("Host key verification failed", "its ssh key is not known here: ssh {0} once, and look at what it shows"),
    ("Permission denied", "it does not let you in without a password: ssh-copy-id {0}"),
    ("Connection refused", "it refuses ssh: is sshd running there, and on the port of your ~/.ssh/config?"),
)


class Host(NamedTuple):
    """A host and how many workers it takes."""

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


class Answer(NamedTuple):
    """What a host has said.

    Attributes:
        failure: why it cannot take part, one line; empty if it can.
        is_reached: whether it was reached at all, if only to be slow.
        facts: its versions, interfaces and code, where it could say.
    """

    failure: str
    is_reached: bool = False
    facts: Optional[Dict[str, Any]] = None


def parse_hosts(text: str) -> List[Host]:
    """The hosts of `-H host1:4,host2:4`; a host without a number takes one worker.

    Raises:
        UserError: naming the part that cannot be.
    """
    return _distinct([_parse(part.strip(), f"-H {text}") for part in text.split(",")], f"-H {text}")


def read_hostfile(path: Path) -> List[Host]:
    """The hosts of a file with one a line, as `host1:4` or `host1 slots=4`; blank lines and # comments are skipped.

    Raises:
        UserError: naming the file and the line that cannot be.
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
    """Those of `-H` or of `--hostfile`; none where neither is given.

    Raises:
        UserError: when both are, or one of them cannot be.
    """
    if given is not None and hostfile is not None:
        raise UserError("--hostfile: give this or -H, not both")
    if given is not None:
        return parse_hosts(given)
    return [] if hostfile is None else read_hostfile(Path(hostfile))


def parse_interface(text: str) -> str:
    """A network interface's name, or several with commas.

    Raises:
        UserError: when it cannot be one.
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
    """Whether that is this machine, where horovodrun then needs no ssh."""
    try:  # one can only bind to one's own address
        address = socket.gethostbyname(host)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except (OSError, UnicodeError):
        return False
    return True


def require_fit(hosts: Sequence[Host], program: Path, interface: str = "") -> None:
    """Ask all hosts whether they can be reached and have what this one has.

    Args:
        hosts: of the job.
        program: that each is to run, with this interpreter, at the same path.
        interface: through which they are to talk, or several with commas, or none in particular.

    Raises:
        UserError: naming the host, what is wrong with it and what to do.
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
    """The hosts that do not answer over ssh (any more), each with the reason."""
    return [f"host {host.name}: {a.failure}" for host, a in _ask_all(hosts, program) if not a.is_reached]


def describe(program: Path) -> Dict[str, Any]:
    """What this host has, as far as it has to be the same everywhere, and its network interfaces."""
    process = provenance.describe_process()
    return {
        "versions": {**process["versions"], "python": process["python"]},
        "code": provenance.code_digest(program),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def _misfits(facts: Dict[str, Any], here: Dict[str, Any], interface: str) -> List[str]:
    """In what a host differs from this one, and which interface it lacks."""
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
    ask: Callable[[Host], Answer] = lambda host: _ask(host.name, program)  # noqa: E731 - what the pool is to call
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as pool:
        return list(zip(hosts, pool.map(ask, hosts)))


def _ask(host: str, program: Path) -> Answer:
    """What a host answers, over ssh unless it is this one."""
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
        return Answer(f"it does not answer within {_ANSWER} s", True)  # ssh gives up before that where nobody is
    if done.returncode == 0:
        with contextlib.suppress(ValueError):  # of a login message behind it, or a host that answers to everything
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
