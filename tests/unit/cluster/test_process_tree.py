"""What a process has started is found and ended, also what its own parent has left behind, and nothing else."""

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import List, Tuple

import pytest

from lstm_dist.cluster import process_tree
from tests.support.programs import ROOT, environment

# A launcher that ends at once leaves a helper in another session, which starts a process itself.
LAUNCHER = "setsid sh -c '{trap}sleep 600 & echo $$ $! >pids; wait' & while [ ! -s pids ]; do sleep 0.02; done"
CLEANS = f"""
import subprocess
from lstm_dist.cluster.process_tree import adopt_orphans, descendants, end_descendants
adopt_orphans()
subprocess.run(["sh", "-c", {LAUNCHER.format(trap='trap "" TERM; ')!r}], check=True)
assert len(descendants()) == 2, descendants()
end_descendants(0.5)
assert not descendants()
"""
KILLED = f"""
import os, signal, subprocess
from lstm_dist.cluster.process_tree import continue_in_child
continue_in_child()
subprocess.run(["sh", "-c", {LAUNCHER.format(trap="")!r}], check=True)
os.kill(os.getpid(), signal.SIGKILL)
"""
# As the shell of `launch/local.sh > >(tee log)`, which starts `tee` and becomes Python.
BESIDE = f"""
import os, subprocess, time
from lstm_dist.cluster.process_tree import continue_in_child
beside = subprocess.Popen(["sh", "-c", "sleep 600 & echo $$ $! >beside; wait"])
while not os.path.exists("beside") or not os.path.getsize("beside"):
    time.sleep(0.02)
continue_in_child()
subprocess.run(["sh", "-c", {LAUNCHER.format(trap="")!r}], check=True)
os._exit(0)
"""
# As ssh, which writes its title over its command line and fills the rest with zero bytes.
TITLED = """
import ctypes, time
first, end = map(int, open("/proc/self/stat").read().rpartition(")")[2].split()[45:47])  # arg_start, arg_end
ctypes.memset(first, 0, end - first)
ctypes.memmove(first, b"ssh: /root/.ssh/node1 [mux]", 27)
print(flush=True)
time.sleep(600)
"""
SHARED = f"""
import subprocess, sys
from lstm_dist.cluster.process_tree import descendants, end_descendants
shared = subprocess.Popen([sys.executable, "-c", {TITLED!r}], stdout=subprocess.PIPE)
own = subprocess.Popen(["sleep", "600"])
shared.stdout.readline()
end_descendants(0.5)
running = descendants()
shared.kill()
assert running == [shared.pid], running
"""


def end(code: str, folder: Path) -> Tuple[int, str]:
    """Run Python code in a folder, and return its exit status and stderr."""
    env, errors = environment({"PYTHONPATH": str(ROOT)}), folder / "stderr"
    with errors.open("w") as stderr:  # a pipe would stay open in what the code leaves behind
        done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, timeout=30, stderr=stderr, check=False)
    return done.returncode, errors.read_text()


def left(folder: Path, file: str = "pids") -> List[int]:
    """Return those of the helper and its process that still run."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in map(int, (folder / file).read_text().split())}
    return [pid for pid, stat in stats.items() if stat.exists() and stat.read_text().split()[2] != "Z"]


def test_orphans_are_found_and_ended(tmp_path: Path):
    assert end(CLEANS, tmp_path) == (0, "")
    assert not left(tmp_path)


def test_nothing_outlives_a_child_that_is_killed(tmp_path: Path):
    status, stderr = end(KILLED, tmp_path)
    assert status == 128 + signal.SIGKILL
    assert stderr.startswith("error: the job's supervisor was ended by signal 9 (Killed), and the job with it: ")
    assert stderr.count("\n") == 1
    assert not left(tmp_path)


def test_what_the_shell_has_started_before_outlives_the_job(tmp_path: Path):
    assert end(BESIDE, tmp_path) == (0, "")
    beside = left(tmp_path, "beside")
    for pid in beside:
        os.kill(pid, signal.SIGKILL)
    assert len(beside) == 2
    assert not left(tmp_path)


def test_shared_connection_of_ssh_is_left_open(tmp_path: Path):
    assert end(SHARED, tmp_path) == (0, "")


def test_process_of_another_user_is_neither_signalled_nor_awaited(monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(process_tree, "descendants", lambda but=(): [os.getpid()])  # noqa: ARG005
    monkeypatch.setattr(os, "kill", refuse)
    monkeypatch.setattr(os, "waitpid", lambda *_: pytest.fail("it waits"))
    process_tree.end_descendants(0.1)


def test_child_whose_parent_ended_during_the_fork_ends(tmp_path: Path):
    code = "import os\nfrom lstm_dist.cluster.launch_env import die_with_parent\ndie_with_parent({})\nos._exit(0)"
    assert end(code.format("os.getppid()"), tmp_path) == (0, "")
    assert end(code.format("os.getpid()"), tmp_path) == (128 + signal.SIGTERM, "")


def test_status_of_the_child_is_kept(tmp_path: Path):
    code = "import sys\nfrom lstm_dist.cluster.process_tree import continue_in_child\ncontinue_in_child()\nsys.exit(75)"
    assert end(code, tmp_path) == (75, "")
