"""Simulated hosts on one machine: namespaces, each with its own address, host name, loopback, sshd and /run.

A bridge in a further namespace connects them, so that the network is invisible from outside, and everything is removed
when the first processes of the namespaces end. The hosts share the file system, as on a cluster, except for what a test
mounts in a host.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence

import pytest

from tests.support.programs import ROOT

TOOLS = ("ip", "unshare", "nsenter", "mount", "ssh", "ssh-keygen", "/usr/sbin/sshd")
WIRES = ROOT / "tests" / "support" / "wires.py"
FOR_EVER = "while :; do sleep 3600; done"
PATIENCE = 20.0


def output(*argv: str) -> str:
    """Run a command that must succeed, and return its stdout."""
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(argv)}: {done.stdout}{done.stderr}"
    return done.stdout


def require_tools(*more: str) -> None:
    """Skip the test with the reason if hosts cannot be created."""
    missing = [tool for tool in (*TOOLS, *more) if shutil.which(tool, path=f"{os.environ['PATH']}:/usr/sbin") is None]
    if missing:
        pytest.skip(f"hosts of our own need {', '.join(missing)}: install iproute2, openssh-server, slurm-wlm, munge")
    namespaces = ["unshare", "--net", "--uts", "--mount", "--pid", "--fork", "true"]
    if os.geteuid() != 0 or subprocess.run(namespaces, capture_output=True, timeout=10, check=False).returncode:
        pytest.skip("hosts of our own need root's right to make namespaces")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = PATIENCE) -> None:
    """Wait until `holds` returns true, and fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"timed out after {seconds:g} s: {what}"
        time.sleep(0.05)


class Space:
    """A set of namespaces, which exists as long as its first process."""

    def __init__(self, script: str, ready: Path) -> None:
        kinds = ("--net", "--uts", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc")
        program = f"{script}\ntouch {ready}\n{FOR_EVER}"
        self._unshare = subprocess.Popen(
            ["unshare", *kinds, "bash", "-ec", program], stdin=subprocess.DEVNULL, start_new_session=True
        )
        wait_until(lambda: ready.exists() or self._unshare.poll() is not None, f"{ready} in {script}")
        assert self._unshare.poll() is None, script
        children = Path(f"/proc/{self._unshare.pid}/task/{self._unshare.pid}/children")
        (self.pid,) = map(int, children.read_text().split())

    def inside(self, *argv: str, cwd: Path = ROOT) -> List[str]:
        """Return the command line that runs a command in these namespaces."""
        kinds = ("--net", "--uts", "--mount", "--pid")
        return [str(shutil.which("nsenter")), "--target", str(self.pid), *kinds, f"--wdns={cwd}", *argv]

    def output(self, *argv: str) -> str:
        return output(*self.inside(*argv))

    def wire(self, *argv: str) -> None:
        """Run a command in this network namespace only, with the process ids of the outside."""
        output("nsenter", "--target", str(self.pid), "--net", *argv)

    def close(self) -> None:
        self._unshare.kill()
        self._unshare.wait(timeout=10)


class Cable(NamedTuple):
    """The properties of a host's cable, in the direction from the host.

    Attributes:
        rate: in tc's notation: 100mbit, 1gbit.
        latency: seconds from one end to the other.
        inside: rate of a host's loopback, which all its processes share; unlimited if empty.
        piece: the largest number of bytes that TCP hands over at a time.
    """

    rate: str
    latency: float
    inside: str = ""
    piece: int = 16_384

    @property
    def mbit(self) -> float:
        """Return the rate in Mbit/s."""
        return mbit(self.rate)

    def limit(self, device: str, rate: str) -> "List[List[str]]":
        """Return the commands that limit a device: a burst is one piece, and the queue holds what TCP sends ahead."""
        shape = ["tbf", "rate", rate, "burst", str(self.piece + 2_000), "limit", str(2**24)]
        return [
            ["ip", "link", "set", device, "mtu", "1500", "gso_max_size", str(self.piece)],
            ["tc", "qdisc", "add", "dev", device, "root", *shape],
        ]


def mbit(rate: str) -> float:
    """Return a rate in tc's notation in Mbit/s."""
    return float(rate[:-4]) * {"gbit": 1000, "mbit": 1}[rate[-4:]]


class Wires:
    """The switch and the cables of a network with slow cables."""

    def __init__(self, cable: Cable, names: Sequence[str], switch: Space) -> None:
        argv = ["nsenter", "--target", str(switch.pid), "--net", sys.executable, str(WIRES)]
        facts = [str(cable.latency), str(cable.mbit * 1e6 / 8)]
        self._process = subprocess.Popen([*argv, *facts, *names], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
        assert self._process.stdout is not None
        with self._process.stdout as said:
            assert said.readline() == b"ready\n"

    def close(self) -> None:
        self._process.kill()
        self._process.wait(timeout=10)


class Host(Space):
    """One host of a network."""

    def __init__(self, number: int, folder: Path) -> None:
        self.number, self.name, self.folder = number, f"node{number}", folder
        script = f"""
            hostname {self.name}
            mount --bind {folder}/hosts /etc/hosts
            mount --bind {folder}/ssh /etc/ssh
            mount -t tmpfs tmpfs /run
            mkdir /run/sshd
            mount -t tmpfs tmpfs {folder}/local  # a disk that only this host sees
            ip link set lo up
        """
        super().__init__(script, folder / f"{self.name}.ready")

    def join(self, switch: Space, cable: Optional[Cable]) -> None:
        """Connect the host to the network, and start its sshd."""
        name, mine = f"cable{self.number}", ("netns", str(self.pid))
        if cable:
            switch.wire("ip", "link", "set", name, *mine, "name", "eth0")
            limits = cable.limit("eth0", cable.rate)
            limits += cable.limit("lo", cable.inside) if cable.inside else []
            for command in limits:
                self.wire(*command)
        else:
            switch.wire("ip", "link", "add", "name", name, "type", "veth", "peer", "name", "eth0", *mine)
            switch.wire("ip", "link", "set", name, "master", "hub", "up")
        self.output("ip", "address", "add", f"10.77.0.{self.number}/24", "dev", "eth0")
        self.output("ip", "link", "set", "eth0", "up")
        self.output("/usr/sbin/sshd", "-h", f"{self.folder}/{self.name}.key", "-f", f"{self.folder}/ssh/sshd_config")


class Network:
    """Some hosts, node1 to node<count>.

    Attributes:
        local: a path at which each host has a folder of its own.
    """

    def __init__(self, folder: Path, count: int, cable: Optional[Cable] = None) -> None:
        self.folder, self.local = folder, folder / "local"
        self.local.mkdir()
        self._write_ssh(count)
        self._switch = Space("ip link add hub type bridge; ip link set hub up", folder / "switch.ready")
        self.hosts: List[Host] = []
        self._wires: Optional[Wires] = None
        try:
            if cable:
                self._wires = Wires(cable, [f"cable{number}" for number in range(1, count + 1)], self._switch)
            for number in range(1, count + 1):
                self.hosts.append(Host(number, folder))
                self.hosts[-1].join(self._switch, cable)
        except BaseException:
            self.close()
            raise

    def _write_ssh(self, count: int) -> None:
        """Write keys, known hosts and host names, including some that must be refused in a test."""
        folder, ssh = self.folder, self.folder / "ssh"
        ssh.mkdir()
        known, hosts = [], ["127.0.0.1 localhost"]
        for name in ("user", "other", *(f"node{number}" for number in range(1, count + 1))):
            output("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / f"{name}.key"))
        for number in range(1, count + 1):
            key = (folder / f"node{number}.key.pub").read_text().rsplit(" ", 1)[0]
            known.append(f"node{number} {key}")
            hosts.append(f"10.77.0.{number} node{number}")
        hosts += ["10.77.0.2 changed unknown stranger closed", "10.77.0.99 gone"]
        known.append("changed " + (folder / "other.key.pub").read_text())
        known += [line.replace("node2 ", f"{name} ") for line in known[1:2] for name in ("stranger", "closed", "gone")]
        (folder / "hosts").write_text("\n".join(hosts) + "\n")
        (folder / "known").write_text("\n".join(known) + "\n")
        (folder / "authorized").write_text((folder / "user.key.pub").read_text())
        (ssh / "sshd_config").write_text(
            f"AuthorizedKeysFile {folder}/authorized\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
        )
        (ssh / "ssh_config").write_text(
            f"Host stranger\n  IdentityFile {folder}/other.key\nHost closed\n  Port 2222\n"
            f"Host * !stranger\n  IdentityFile {folder}/user.key\n"
            f"Host *\n  IdentitiesOnly yes\n  UserKnownHostsFile {folder}/known\n"
        )

    def set_link(self, number: int, state: str) -> None:
        """Unplug the cable of a host, "down", or plug it in again, "up"."""
        self._switch.wire("ip", "link", "set", f"cable{number}", state)

    def close(self) -> None:
        if self._wires:
            self._wires.close()
        for space in (*self.hosts, self._switch):
            space.close()
