"""Workers of one machine are connected over loopback, whatever the machine's name resolves to or its interfaces do."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.launchers import ENVIRONMENT
from tests.support.programs import ROOT, TINY, epochs, run

pytestmark = pytest.mark.slow

NAMESPACES = ("unshare", "--net", "--uts", "--mount")
# A machine whose name resolves to the given address, with an interface that has another one and disappears during the
# run, as that of a VPN.
MACHINE = """
set -e
hostname laptop
mount --bind hosts /etc/hosts
ip link set lo up
ip link add vpn0 type veth peer name vpn1
ip address add 10.9.8.7/24 dev vpn0
ip link set vpn0 up
ip link set vpn1 up
(while [ ! -s run/metrics.jsonl ]; do sleep 0.1; done; ip link delete vpn0; wc -l <run/metrics.jsonl >gone) &
waiter=$!
set +e
"$@"
status=$?
kill $waiter 2>/dev/null
exit $status
"""


@pytest.mark.parametrize(
    ("controller", "address"), [("gloo", "10.9.8.7"), ("mpi", "10.9.8.7"), ("gloo", "192.0.2.1")],
    ids=["gloo-own-address", "mpi-own-address", "gloo-foreign-address"],
)  # fmt: skip
def test_job_on_one_machine_depends_on_no_other_interface(
    controller: str, address: str, song_file: Path, tmp_path: Path
):
    if os.geteuid() != 0 or subprocess.run([*NAMESPACES, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a machine of our own needs root's right to make namespaces")
    (tmp_path / "hosts").write_text(f"127.0.0.1 localhost\n{address} laptop\n")
    job = [sys.executable, str(ROOT / "launch" / "supervise.py"), f"--{controller}", *TINY, "--epochs=20"]
    flags = ["--log-every=20", "--run-dir=run", f"--corpus={song_file}", "--stall-timeout=15"]
    done = run([*NAMESPACES, "sh", "-c", MACHINE, "sh", *job, *flags], cwd=tmp_path, env=ENVIRONMENT, timeout=90)
    assert (done.returncode, done.stderr) == (0, "")
    assert int((tmp_path / "gone").read_text()) < epochs(tmp_path / "run") == 20
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished"
