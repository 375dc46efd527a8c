"""Questions to the hosts of a job over ssh: whether each can be reached, and has the same software as this one.

`python -m lstm_dist.cluster.host_query PROGRAM [ATTEMPT]` prints the facts of the host it runs on as JSON. Given an
attempt at a job, it first ends what earlier attempts have left running there.
"""

import contextlib
import json
import os
import platform
import shlex
import socket
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

from lstm_dist.attempt import Attempt
from lstm_dist.cluster.hosts import Host, is_here
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.cluster.process_tree import end_earlier_attempts
from lstm_dist.cluster.provenance import package_versions
from lstm_dist.cluster.source_code import code_digest
from lstm_dist.errors import ExitStatus, UserError

UNREACHABLE = "it cannot be reached over ssh"  # beginning of the problem of a host that is down or cut off
CONTACT = 4.5  # seconds that a job which can do without a host waits for a sign of it: 5 s with all that it takes
_CONNECT, _REPLY = 8.0, 30.0  # seconds for ssh to connect and for the host to reply; uncached imports are slow
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


class HostReply(NamedTuple):
    """The reply of a host.

    Attributes:
        failure: one line on why it does not reply; empty if it does.
        facts: its versions, interfaces and code digest, if it reported them.
    """

    failure: str
    facts: Optional[Dict[str, Any]] = None


class HostQuery(NamedTuple):
    """What is asked of every host.

    Attributes:
        program: run on each host with this interpreter, at the same path.
        interface: network interfaces for communication, separated by commas; empty for any.
        limit: seconds within which a host has to reply.
        contact: seconds within which it has to begin to reply.
    """

    program: Path
    interface: str = ""
    limit: float = _REPLY
    contact: float = _REPLY

    def problems(
        self, hosts: Sequence[Host], attempt: Optional[Attempt] = None, is_patient: bool = False
    ) -> Dict[str, List[str]]:
        """Ask all hosts at the same time, and return why each of them, by name, is not usable; empty lists if they are.

        Args:
            hosts: to ask.
            attempt: what earlier attempts at the same job have left running on a host is ended; None to end nothing.
            is_patient: whether a host that has begun to reply may take longer than the limit.
        """
        began, query = time.monotonic(), self._replace(limit=_REPLY) if is_patient else self
        here = describe(self.program)
        with ThreadPoolExecutor(max_workers=max(1, len(hosts))) as pool:
            ask = partial(query._ask, attempt=attempt, began=began)
            replies = list(pool.map(ask, [host.name for host in hosts]))
        return {
            host.name: [reply.failure] if reply.facts is None else _differences(reply.facts, here, self.interface)
            for host, reply in zip(hosts, replies)
        }

    def _ask(self, host: str, attempt: Optional[Attempt], began: float) -> HostReply:
        """Return the reply of a host, asked at `began` over ssh unless it is this machine."""
        # Of this folder, as the workers are, even if the environment was made in another clone.
        query = ["env", f"PYTHONPATH={ROOT}", sys.executable, "-m", "lstm_dist.cluster.host_query", str(self.program)]
        query += [str(attempt)] if attempt else []
        # No prompts, because nobody can answer them, and no unknown host keys. A limit of ssh's own that ends before
        # this one tells a host that is down from one that is slow.
        contact = min(self.contact, self.limit)
        connect = max(1, int(min(_CONNECT, contact - 0.5)))
        ssh = ["ssh", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=yes", "-o", f"ConnectTimeout={connect}"]
        try:
            if is_here(host):
                done = _run(query, began + self.limit, began + self.limit)
            else:  # the empty line is the sign that it begins to reply
                done = _run([*ssh, host, f"echo; exec {shlex.join(query)}"], began + contact, began + self.limit)
        except FileNotFoundError:
            return HostReply("this host has no ssh: install it (Debian, Ubuntu: openssh-client)")
        except subprocess.TimeoutExpired as error:
            return HostReply(f"it does not answer within {error.timeout - began:g} s")
        return _reply(host, done)


def _run(command: Sequence[str], contact: float, end: float) -> "subprocess.CompletedProcess[str]":
    """Run a command, and return its status and output.

    Args:
        command: to run.
        contact: when it is killed if it has written nothing, in `time.monotonic` seconds.
        end: when it is killed in any case.

    Raises:
        FileNotFoundError: if there is no such program.
        TimeoutExpired: with the time at which it was killed.
    """
    with tempfile.TemporaryFile() as stdout, tempfile.TemporaryFile() as stderr:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr,
            cwd=ROOT,  # because `python -m` imports from the current folder, which may be another clone
        )  # fmt: skip
        try:
            for moment in (contact, end):
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(max(0.0, moment - time.monotonic()))
                if process.returncode is None and (moment == end or not os.fstat(stdout.fileno()).st_size):
                    raise subprocess.TimeoutExpired(command, moment)
        finally:
            process.kill()
            process.wait()
        texts = [os.pread(file.fileno(), 1 << 20, 0).decode(errors="replace") for file in (stdout, stderr)]
        return subprocess.CompletedProcess(list(command), process.returncode, *texts)


def _reply(host: str, done: "subprocess.CompletedProcess[str]") -> HostReply:
    """Return the reply of a host, given the end of the command that asked it."""
    if done.returncode == 0:
        with contextlib.suppress(ValueError):  # a login message follows the JSON, or the host replies to any command
            facts = json.loads(_last_line(done.stdout))
            if isinstance(facts, dict) and facts.keys() >= {"versions", "code", "interfaces"}:
                return HostReply("", facts)
    if done.returncode == 255:
        known = (advice.format(host) for sign, advice in _SSH_FAILURES if sign in done.stderr)
        return HostReply(next(known, f"{UNREACHABLE} ({_last_line(done.stderr)})"))
    if done.returncode in (126, 127):
        return HostReply(f"it has no {sys.executable}: run launch/setup.sh there, in the same folder as here")
    message = _last_line(done.stderr or done.stdout)
    return HostReply(
        f"its lstm_dist differs or is broken ({message}): check out the same commit, and run launch/setup.sh there"
    )


def require_usable(hosts: Sequence[Host], query: HostQuery) -> None:
    """Check that all hosts can be reached and have the same software as this one.

    Raises:
        UserError: naming the host, the problem and what to do.
    """
    require_usable_here(query)
    failures = [(name, reason) for name, reasons in query.problems(hosts).items() for reason in reasons]
    if failures:
        name, reason = failures[0]
        others = list(dict.fromkeys(other for other, _ in failures if other != name))
        more = f" (also not usable: {', '.join(others)})" if others else ""
        raise UserError(f"host {name}: {reason}{more}", ExitStatus.BAD_CONFIG)


def require_usable_here(query: HostQuery) -> None:
    """Check that this host has the network interface.

    Raises:
        UserError: naming the host and the interface, if it does not.
    """
    here = describe(query.program)
    for reason in _differences(here, here, query.interface):
        raise UserError(f"host {socket.gethostname()}: {reason}", ExitStatus.BAD_CONFIG)


def describe(program: Path) -> Dict[str, Any]:
    """Return what must be the same on every host (versions, code digest), and the network interfaces."""
    return {
        "versions": {**package_versions(), "python": platform.python_version()},
        "code": code_digest(program),
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


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no message"])[-1].strip()


if __name__ == "__main__":
    for _attempt in filter(None, map(Attempt.parse, sys.argv[2:])):
        end_earlier_attempts(_attempt)
    print(json.dumps(describe(Path(sys.argv[1]))))
