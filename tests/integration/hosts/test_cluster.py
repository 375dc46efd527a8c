"""launch/cluster.sh on simulated hosts (network namespaces), each with its own sshd, address and loopback."""

import json
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any, Callable, List, NamedTuple, Tuple

import pytest

from tests.support.launchers import ENVIRONMENT
from tests.support.network import Host, Network, wait_until
from tests.support.outcomes import rows, same_bits, same_trajectory
from tests.support.programs import ROOT, TINY, TRAIN, epochs, newest, run

# One group: a single pytest-xdist process runs all of them, so one network is enough.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("hosts")]

CLUSTER = str(ROOT / "launch" / "cluster.sh")
THREE = ("-H", "node1:1,node2:1,node3:1")
BOTH = pytest.mark.parametrize("controller", ["gloo", "mpi"])


class Reference(NamedTuple):
    """The flags of a run of some seconds, and the directory of its run with one process."""

    flags: Tuple[str, ...]
    alone: Path


@pytest.fixture(scope="session")
def reference(song_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    small = ("--epochs=8", "--learning-rate=0.01", "--log-every=4", "--sample-length=20")
    flags = (*TINY, f"--corpus={song_file}", *small)
    run_dir = tmp_path_factory.mktemp("reference") / "alone"
    done = run([*TRAIN, *flags, f"--run-dir={run_dir}"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return Reference(flags, run_dir)


def start(network: Network, *flags: str, **how: Any) -> "subprocess.CompletedProcess[str]":
    """Run launch/cluster.sh on node1."""
    variables = {**ENVIRONMENT, "MY_SECRET_TOKEN": "hunter2", "PYTHON": None}
    return run(network.hosts[0].inside(CLUSTER, *flags), env=variables, **how)


# Training


@BOTH
def test_three_hosts_follow_the_trajectory_of_one_process(
    real: Path, network: Network, reference: Reference, tmp_path: Path, controller: str
):
    assert real.exists()
    run_dir, seen = tmp_path / "run", []

    def look() -> None:
        while not (run_dir / "metrics.jsonl").exists():
            time.sleep(0.1)
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        seen.extend(line for line in lines if b"train.py" in line)

    looker = threading.Thread(target=look, daemon=True)
    looker.start()
    flags = (*THREE, "--interface=eth0", f"--{controller}", *reference.flags, f"--run-dir={run_dir}")
    done = start(network, *flags)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert f"\n3 workers over {controller} on cpu(0)" in done.stdout
    same_trajectory(reference.alone, run_dir)
    ranks = json.loads((run_dir / "run.json").read_bytes())["ranks"]
    assert [(rank["host"], rank["interfaces"]) for rank in ranks] == [(f"node{k}", ["eth0"]) for k in (1, 2, 3)]
    looker.join(timeout=5)
    assert seen
    assert not [line for line in seen if b"hunter2" in line]


def test_hostfile_is_read_and_horovodrun_finds_the_interface(
    real: Path, network: Network, reference: Reference, tmp_path: Path
):
    assert real.exists()
    hostfile = tmp_path / "hosts"
    hostfile.write_text("# ours\n\nnode2:1   # the first, where rank 0 is\nnode3 slots=2\n")
    run_dir = tmp_path / "run"
    done = start(network, "--hostfile", str(hostfile), *reference.flags, f"--run-dir={run_dir}")
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    ranks = json.loads((run_dir / "run.json").read_bytes())["ranks"]
    assert [rank["host"] for rank in ranks] == ["node2", "node3", "node3"]
    same_trajectory(reference.alone, run_dir)


@BOTH
def test_single_host_follows_the_trajectory_of_one_process(
    real: Path, network: Network, reference: Reference, tmp_path: Path, controller: str
):
    assert real.exists()
    flags = ("-H", "node1:2", "--interface=eth0", f"--{controller}", *reference.flags, f"--run-dir={tmp_path}/run")
    done = start(network, *flags)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    same_trajectory(reference.alone, tmp_path / "run")


def test_print_shows_the_command_without_running_it(real: Path, network: Network, tmp_path: Path):
    assert real.exists()
    flags = ("--epochs", "50", "--corpus", "my text.txt")
    done = start(network, "-H", "nowhere1:4,nowhere2:4", "--interface", "ib0", "--print", *flags)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == (
        f'PATH={Path(sys.executable).parent}:"$PATH" '
        "horovodrun --disable-cache --gloo -np 8 -H nowhere1:4,nowhere2:4 --network-interfaces ib0 "
        f"{sys.executable} {ROOT}/jobs/train.py --epochs 50 --corpus 'my text.txt'\n"
    )
    assert not list(tmp_path.iterdir())


# Refusals


def refusal(network: Network, *flags: str) -> str:
    """Return the single error line that these flags cause within 15 seconds."""
    began = time.monotonic()
    done = start(network, *flags)
    assert time.monotonic() - began < 15
    assert done.stdout == ""
    assert done.returncode in (2, 66, 78)
    (line,) = done.stderr.splitlines()
    return line


@pytest.mark.parametrize(
    ("host", "message"),
    [
        ("nosuch", "its name cannot be resolved"),
        ("gone", "it cannot be reached over ssh (ssh: connect to host gone port 22: No route to host)"),
        ("closed", "it refuses ssh"),
        ("unknown", "its ssh key is not known here: run ssh unknown once and verify the key"),
        ("changed", "its ssh key has changed: if that is expected, ssh-keygen -R changed, then ssh changed"),
        ("stranger", "it does not accept a login without a password: ssh-copy-id stranger"),
    ],
)
def test_host_without_ssh_access_is_reported(real: Path, network: Network, host: str, message: str):
    assert real.exists()
    line = refusal(network, "-H", f"node1:1,{host}:1")
    assert line.startswith(f"error: host {host}: {message}")


def changed(host: Host, path: Path, change: Callable[[str], str], tmp_path: Path) -> Callable[[], str]:
    """Mount a changed copy over a file of one host; return the function that undoes this."""
    other = tmp_path / path.name
    other.write_text(change(path.read_text()))
    host.output("mount", "--bind", str(other), str(path))
    return lambda: host.output("umount", str(path))


def test_host_with_another_version_or_code_is_reported(real: Path, network: Network, tmp_path: Path):
    host = network.hosts[2]
    facts = real.glob("lib/python*/site-packages/horovod-*info/*")  # pip of Python 3.8 leaves an egg-info
    (metadata,) = [path for path in facts if path.name in ("METADATA", "PKG-INFO")]
    undo = changed(host, metadata, lambda text: text.replace("\nVersion: 0.28.1", "\nVersion: 0.27.0"), tmp_path)
    try:
        line = refusal(network, *THREE)
    finally:
        undo()
    assert line == "error: host node3: it has horovod 0.27.0, this host 0.28.1: run launch/setup.sh on both"
    undo = changed(host, ROOT / "lstm_dist/model/optim.py", lambda text: text + "\n", tmp_path)
    try:
        line = refusal(network, *THREE)
    finally:
        undo()
    assert line == "error: host node3: its code differs from that of this host: check out the same commit on both"


def test_host_without_the_environment_is_reported(real: Path, network: Network):
    host = network.hosts[1]
    host.output("mount", "-t", "tmpfs", "tmpfs", str(real))
    try:
        line = refusal(network, *THREE)
    finally:
        host.output("umount", str(real))
    assert line.startswith(f"error: host node2: it has no {sys.executable}: run launch/setup.sh there")


def test_host_without_the_interface_is_reported(real: Path, network: Network):
    assert real.exists()
    host = network.hosts[0]
    host.output("ip", "link", "add", "ib0", "type", "veth", "peer", "name", "ib1")
    try:
        line = refusal(network, *THREE, "--interface", "ib0")
    finally:
        host.output("ip", "link", "delete", "ib0")
    assert line.startswith("error: host node2: --interface ib0: it has no such network interface, only ")
    assert line.endswith(" (also not usable: node3)")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "-H, --hostfile or --discover-hosts: give the hosts, such as -H node1:4,node2:4"),
        (
            ["-H", "node1:4,$(touch x)"],
            "-H node1:4,$(touch x): '$(touch x)' should be a host and its number of workers",
        ),
        (["-H", "-oProxyCommand=x:1"], "-H : '' should be a host"),
        (["-H=-oProxyCommand=x:1"], "-H -oProxyCommand=x:1: '-oProxyCommand=x:1' should be a host"),
        (
            ["-n", "3", "-H", "node1"],
            "-n: cannot be combined with -H, which gives the numbers of workers: leave it out",
        ),
        (["-H", "node1:0"], "-H node1:0: 'node1:0' should be"),
        (["-H", "node1,node1"], "-H node1,node1: node1 is listed twice"),
        (["-H", "node1", "--interface", "eth0;x"], "--interface 'eth0;x': should be a network interface"),
        (["--hostfile", "/nowhere"], "--hostfile /nowhere: cannot be read (No such file or directory)"),
        (["-H", "node1", "--hostfile", "/nowhere"], "--hostfile: cannot be combined with -H"),
        (["-H", "node1", "--epoch=3"], "--epoch: no such flag"),
    ],
)
def test_invalid_flag_is_reported_in_one_line(real: Path, network: Network, flags: List[str], message: str):
    assert real.exists()
    assert refusal(network, *flags).startswith(f"error: {message}")


# A disconnected host


def test_disconnected_host_ends_the_job_which_can_be_resumed(
    real: Path, network: Network, reference: Reference, tmp_path: Path
):
    """Over MPI; test_elastic.py cuts off a host over Gloo."""
    assert real.exists()
    run_dir, whole = tmp_path / "run", tmp_path / "whole"
    flags = (*THREE, "--interface=eth0", "--mpi")
    long = (*reference.flags, "--epochs=12", "--stall-timeout=5", "--checkpoint-every=0.3s")
    assert start(network, *flags, *long, f"--run-dir={whole}").returncode == 0
    cut: List[float] = []

    def pull() -> None:
        wait_until(lambda: epochs(run_dir) >= 2, "two epochs", 60)
        network.set_link(3, "down")
        cut.append(time.monotonic())

    def plug_in() -> None:
        cut.append(time.monotonic())
        network.set_link(3, "up")

    threading.Thread(target=pull, daemon=True).start()
    try:
        more = ("--max-restarts=3", "--wait-for-workers=2s", f"--run-dir={run_dir}")
        done = start(network, *flags, *long, *more, then=plug_in)
    finally:
        network.set_link(3, "up")
    assert cut[1] - cut[0] < 5 + 60
    assert done.returncode == 76, done.stdout + done.stderr
    last = done.stderr.splitlines()[-1]
    words = r"lost after step [\d,]+; fewer than 3 workers within 2 s: give a longer --wait-for.*; resume from"
    assert re.match(rf"error: host node3: it cannot be reached over ssh \(.*\); {words}", last), done.stderr
    assert "\nwaiting up to 2 s for node3: 2 workers, at least 3 are needed\n" in done.stderr
    command = "launch/cluster.sh -H node1:1,node2:1,node3:1 --interface eth0 --mpi --wait-for-workers 2s --resume"
    assert f"with: {command}" in last
    step = int(newest(run_dir).stem.split("-")[1])
    assert f"; resume from step {step} with: " in last
    done = start(network, *flags, "--resume", f"--run-dir={run_dir}")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"resumed after step {step}, " in done.stdout
    assert rows(run_dir) == rows(whole)
    same_bits(whole, run_dir)
