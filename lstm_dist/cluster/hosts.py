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
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from lstm_dist.cluster import provenance
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.encoding import decode_unicode
from lstm_dist.errors import ExitStatus, UserError

_HOST = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?:(?::|\s+slots=)([1-9][0-9]{0,3}))?")
_INTERFACE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,14}")
_CONNECT, _REPLY = 8, 30  # seconds for ssh to connect and for the host to reply; uncached imports are slow
# No prompts, because nobody can answer them, and no unknown host keys.
_SSH = ("ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={_CONNECT}")
# Messages of ssh, and what to report for the host.
_SSH_FAILURES = (
    ("Could not resolve hostname", "its name cannot be resolved: check it with `getent hosts {0}`"),
    (
        "HOST IDENTIFICATION HAS CHANGED",
        "its ssh key has changed: if that is expected, ssh-keygen -R {0}, then ssh {0}",
    ),
    (
        "Host key verification failed",
        "its ssh key is not known here: run ssh {0} once and verify the key",
    ),
    ("Permission denied", "it does not accept a login without a password: ssh-copy-id {0}"),
    ("Connection refused", "it refuses ssh: start sshd there, on the port of your ~/.ssh/config"),
)


class Host(NamedTuple):
    """A host and its number of workers."""

    name: str
    slots: int = 1

    def __str__(self) -> str:
        return f"{self.name}:{self.slots}"


class HostReply(NamedTuple):
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
        lines = decode_unicode(path.read_bytes()).splitlines()
    except OSError as error:
        raise UserError(f"{where}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    except UnicodeDecodeError:
        raise UserError(f"{where}: is not a UTF-8 text file", ExitStatus.BAD_CONFIG) from None
    hosts = []
    for number, line in enumerate(lines, 1):
        entry = line.partition("#")[0].strip()
        if entry:
            hosts.append(_parse(entry, f"{where}, line {number}"))
    if not hosts:
        raise UserError(f"{where}: lists no host: give one per line, such as node1:4", ExitStatus.BAD_CONFIG)
    return _distinct(hosts, where)


def choose_hosts(given: Optional[str], hostfile: Optional[str]) -> List[Host]:
    """Return the hosts of `-H` or of `--hostfile`; none if neither is given.

    Raises:
        UserError: when both are given, or the given one is invalid.
    """
    if given is not None and hostfile is not None:
        raise UserError("--hostfile: cannot be combined with -H: give only one of them")
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
        raise UserError(f"{where}: {twice} is listed twice: list it once, with all its workers")
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


def require_usable(hosts: Sequence[Host], program: Path, interface: str = "") -> None:
    """Check that all hosts can be reached and have the same software as this one.

    Args:
        hosts: of the job.
        program: run on each host with this interpreter, at the same path.
        interface: network interfaces for communication, separated by commas; empty for any.

    Raises:
        UserError: naming the host, the problem and what to do.
    """
    here = describe(program)
    failures = [(socket.gethostname(), f) for f in _differences(here, here, interface)]
    for host, reply in _query_all(hosts, program):
        reasons = [reply.failure] if reply.facts is None else _differences(reply.facts, here, interface)
        failures += [(host.name, reason) for reason in reasons]
    if failures:
        name, reason = failures[0]
        others = list(dict.fromkeys(other for other, _ in failures if other != name))
        more = f" (also not usable: {', '.join(others)})" if others else ""
        raise UserError(f"host {name}: {reason}{more}", ExitStatus.BAD_CONFIG)


def unreachable(hosts: Sequence[Host], program: Path) -> List[str]:
    """Return the hosts that cannot be reached over ssh, each with the reason."""
    return [f"host {host.name}: {reply.failure}" for host, reply in _query_all(hosts, program) if not reply.is_reached]


def describe(program: Path) -> Dict[str, Any]:
    """Return what must be the same on every host (versions, code digest), and the network interfaces."""
    process = provenance.describe_process()
    return {
        "versions": {**process["versions"], "python": process["python"]},
        "code": provenance.code_digest(program),
        "interfaces": [name for _, name in socket.if_nameindex()],
    }


def _differences(facts: Dict[str, Any], here: Dict[str, Any], interface: str) -> List[str]:
    """Return how a host differs from this one, and which of the interfaces it lacks."""
    theirs, ours = facts["versions"], here["versions"]
    found = [
        f"it has {name} {theirs.get(name, 'missing')}, this host {ours.get(name, 'missing')}: "
        "run launch/setup.sh on both"
        for name in sorted({*theirs, *ours})
        if theirs.get(name) != ours.get(name)
    ]
    if not found and facts["code"] != here["code"]:
        found.append("its code differs from that of this host: check out the same commit on both")
    missing = [name for name in filter(None, interface.split(",")) if name not in facts["interfaces"]]
    if missing:
        has = ", ".join(facts["interfaces"])
        found.append(f"--interface {','.join(missing)}: it has no such network interface, only {has}")
    return found


def _query_all(hosts: Sequence[Host], program: Path) -> List[Tuple[Host, HostReply]]:
    names = [host.name for host in hosts]
    with ThreadPoolExecutor(max_workers=min(32, len(hosts))) as pool:
        return list(zip(hosts, pool.map(partial(_query, program=program), names)))


def _query(host: str, program: Path) -> HostReply:
    """Return the reply of a host, asked over ssh unless it is this machine."""
    # Of this folder, as the workers are, even if the environment was made in another clone.
    query = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "lstm_dist.cluster.hosts", str(program)]
    command = query if is_here(host) else [*_SSH, host, shlex.join(query)]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_REPLY,
            check=False, cwd=ROOT,  # because `python -m` imports from the current folder, which may be another clone
        )  # fmt: skip
    except FileNotFoundError:
        return HostReply("this host has no ssh: install it (Debian, Ubuntu: openssh-client)")
    except subprocess.TimeoutExpired:
        return HostReply(f"it does not answer within {_REPLY} s", True)  # ssh times out earlier if the host is down
    if done.returncode == 0:
        with contextlib.suppress(ValueError):  # a login message follows the JSON, or the host replies to any command
            return HostReply("", True, json.loads(_last_line(done.stdout)))
    if done.returncode == 255:
        known = (advice.format(host) for sign, advice in _SSH_FAILURES if sign in done.stderr)
        return HostReply(next(known, f"it cannot be reached over ssh ({_last_line(done.stderr)})"))
    if done.returncode in (126, 127):
        return HostReply(f"it has no {sys.executable}: run launch/setup.sh there, in the same folder as here", True)
    message = _last_line(done.stderr or done.stdout)
    return HostReply(
        f"its lstm_dist differs or is broken ({message}): check out the same commit, and run launch/setup.sh there",
        True,
    )


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].strip()


if __name__ == "__main__":
    print(json.dumps(describe(Path(sys.argv[1]))))
