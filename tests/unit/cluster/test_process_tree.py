"""What a process has started is found and ended, also what its own parent has left behind."""

import signal
import subprocess
import sys
from pathlib import Path
from typing import List

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


def end(code: str, folder: Path) -> int:
    """Run Python code in a folder, and return its exit status."""
    env = environment({"PYTHONPATH": str(ROOT)})
    return subprocess.run([sys.executable, "-c", code], cwd=folder, env=env, timeout=30, check=False).returncode


def left(folder: Path) -> List[int]:
    """Return those of the helper and its process that still run."""
    stats = {pid: Path(f"/proc/{pid}/stat") for pid in map(int, (folder / "pids").read_text().split())}
    return [pid for pid, stat in stats.items() if stat.exists() and stat.read_text().split()[2] != "Z"]


def test_orphans_are_found_and_ended(tmp_path: Path):
    assert end(CLEANS, tmp_path) == 0
    assert not left(tmp_path)


def test_nothing_outlives_a_child_that_is_killed(tmp_path: Path):
    assert end(KILLED, tmp_path) == 128 + signal.SIGKILL
    assert not left(tmp_path)


def test_status_of_the_child_is_kept(tmp_path: Path):
    code = "import sys\nfrom lstm_dist.cluster.process_tree import continue_in_child\ncontinue_in_child()\nsys.exit(75)"
    assert end(code, tmp_path) == 75
