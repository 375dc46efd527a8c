"""The functions of slurm/nodes.sh with stand-ins for the commands of Slurm; the other tests here have a real Slurm."""

import os
import subprocess
import time
from pathlib import Path
from typing import Dict, List

import pytest

from tests.support.programs import ROOT

# Each reads and writes files in the folder $CLUSTER. `sleep` is short, so that the guard looks often.
COMMANDS = {
    "sinfo": 'tr " " "\\n" <"$CLUSTER/nodes"',
    "squeue": """
        echo "$@" >>"$CLUSTER/asked"
        case "$*" in
            *%D*) wc -w <"$CLUSTER/allocated" ;;
            *%B*) cat "$CLUSTER/batch" ;;
            *-w*) while [ "$1" != -w ]; do shift; done; grep -qw "$2" "$CLUSTER/allocated" && echo 7 || true ;;
            *) echo 7 ;;
        esac""",
    # Runs a command on the nodes of --nodelist, or on all that answer.
    "srun": """
        echo "$@" >>"$CLUSTER/steps"
        nodes=$(cat "$CLUSTER/answering")
        while case $1 in -*) true ;; *) false ;; esac; do
            case $1 in --nodelist=*) nodes=${1#*=}; nodes=${nodes%%,*} ;; -c) shift ;; esac
            shift
        done
        for node in $nodes; do SLURMD_NODENAME=$node "$@"; done
        [ ! -e "$CLUSTER/hangs" ] || exec /bin/sleep 60""",
    "scontrol": 'echo "$@" >>"$CLUSTER/requests"; [ ! -e "$CLUSTER/refuses" ] && echo node9 >"$CLUSTER/batch"',
    "scancel": 'echo "scancel $*" >>"$CLUSTER/requests"; : >"$CLUSTER/batch"',
    "sleep": "exec /bin/sleep 0.02",
}


class Cluster:
    """The allocation of job 7, whose batch script runs on node1."""

    def __init__(self, folder: Path, nodes: str = "node1 node2 node3") -> None:
        self.folder = folder
        for name, script in COMMANDS.items():
            (folder / name).write_text(f"#!/bin/sh\n{script}\n")
            (folder / name).chmod(0o755)
        for name in ("nodes", "allocated", "answering"):
            self.set(name, nodes)
        self.set("batch", "node1")

    def set(self, name: str, words: str = "") -> None:
        (self.folder / name).write_text(f"{words}\n" if words else "")

    def words(self, name: str) -> List[str]:
        """Return the lines of a file that the commands have written."""
        path = self.folder / name
        return path.read_text().splitlines() if path.exists() else []

    def run(self, script: str, **env: str) -> "tuple[int, List[str]]":
        """Run a script after nodes.sh, and return its status and the lines of its output."""
        count = str(len((self.folder / "nodes").read_text().split()))
        job = {
            "SLURM_JOB_ID": "7",
            "SLURM_JOB_NODELIST": "node[1-9]",
            "SLURM_NNODES": count,
            "SLURMD_NODENAME": "node1",
        }
        numbers = {"SPARE_NODES": "0", "MIN_NODES": ""}
        die = 'die() { echo "error: $2"; exit "$1"; }'
        with (self.folder / "output").open("w") as output:
            done = subprocess.run(
                ["bash", "-c", f"set -euo pipefail\n{die}\n. {ROOT}/slurm/nodes.sh\ncheck_numbers_of_nodes\n{script}"],
                env={**os.environ, "PATH": f"{self.folder}:{os.environ['PATH']}", "CLUSTER": str(self.folder),
                     **job, **numbers, **env},
                stdout=output, stderr=subprocess.STDOUT, timeout=60, check=False,
            )  # fmt: skip
        return done.returncode, self.words("output")


@pytest.fixture
def cluster(tmp_path: Path) -> Cluster:
    return Cluster(tmp_path)


SHOW = 'echo "alive ${alive[*]}, lost ${lost[*]}"'


def test_nodes_that_do_not_answer_are_lost_until_the_end(cluster: Cluster):
    cluster.set("answering", "node3 node1")
    assert cluster.run(f'find_lost; {SHOW}; echo "node1 node2 node3" >$CLUSTER/answering; find_lost; {SHOW}') == (
        0,
        ["alive node1 node3, lost node2", "alive node1 node3, lost "],
    )


def test_silence_of_slurm_is_no_loss(cluster: Cluster):
    cluster.set("answering")
    assert cluster.run(f"find_lost; {SHOW}") == (0, ["alive node1 node2 node3, lost "])
    assert len(cluster.words("steps")) == 3  # it is asked three times


def test_node_that_hangs_is_waited_for_as_long_as_patience_says(cluster: Cluster):
    """Nodes that Slurm has removed from the job are not asked, because it would refuse the step."""
    cluster.set("hangs")
    cluster.set("answering", "node1")
    cluster.set("allocated", "node1 node3")
    began = time.monotonic()
    assert cluster.run(f"patience=0.3; find_lost; {SHOW}") == (0, ["alive node1, lost node2 node3"])
    assert time.monotonic() - began < 20
    assert "--no-kill --nodes=2 --ntasks=2 --ntasks-per-node=1 " in cluster.words("steps")[0]


@pytest.mark.parametrize(
    ("answering", "env", "chosen"),
    [
        ("node1 node2 node3", {}, "node1 node2 node3"),
        ("node1 node3", {}, ""),  # by default, all have to be left
        ("node1 node3", {"MIN_NODES": "2"}, "node1 node3"),
        ("node1 node2 node3", {"SPARE_NODES": "1"}, "node1 node2"),
        ("node1 node3", {"SPARE_NODES": "1"}, "node1 node3"),
        ("node1", {"SPARE_NODES": "1"}, ""),
        ("node1", {"SPARE_NODES": "01", "MIN_NODES": "1"}, "node1"),
        ("node2 node3", {"MIN_NODES": "1"}, ""),  # without that of the batch script
    ],
)
def test_nodes_that_train(cluster: Cluster, answering: str, env: Dict[str, str], chosen: str):
    cluster.set("answering", answering)
    assert cluster.run('find_lost; choose_nodes && echo "${nodes[*]}" || echo', **env) == (0, [chosen])


@pytest.mark.parametrize(
    ("env", "message"),
    [
        ({"SPARE_NODES": "3"}, "SPARE_NODES=3: should be a whole number, smaller than that of the nodes, 3"),
        ({"SPARE_NODES": "x"}, "SPARE_NODES=x: should be a whole number, smaller than that of the nodes, 3"),
        ({"MIN_NODES": "0"}, "MIN_NODES=0: should be a whole number from 1 to that of the nodes that train, 3"),
        (
            {"MIN_NODES": "3", "SPARE_NODES": "1"},
            "MIN_NODES=3: should be a whole number from 1 to that of the nodes that train, 2",
        ),
    ],
)
def test_invalid_numbers_of_nodes_are_refused(cluster: Cluster, env: Dict[str, str], message: str):
    assert cluster.run("echo not reached", **env) == (78, [f"error: {message}"])


# The guard, which requeues the job if the node of the batch script is lost

GUARD = "start_guard; wait"


def test_guard_requeues_a_job_that_has_lost_the_node_of_its_batch_script(tmp_path: Path):
    cluster = Cluster(tmp_path, "node1 node2 node3 node4 node5")
    cluster.set("allocated", "node2 node3 node4 node5")
    assert cluster.run(GUARD) == (0, ["lost node1: it runs the batch script; requeued"])
    assert cluster.words("requests") == ["requeue 7"]
    assert "--nodes=3 " in cluster.words("steps")[0]
    assert "--nodelist=node2,node3,node4 " in cluster.words("steps")[0]


def test_guard_ends_with_the_job(cluster: Cluster):
    looks = "touch $CLUSTER/asked; until (($(grep -c %B $CLUSTER/asked) >= 3)); do sleep 1; done"
    assert cluster.run(f"start_guard; {looks}; : >$CLUSTER/batch; wait") == (0, [])
    assert cluster.words("requests") == []


def test_guard_cancels_a_job_that_cannot_be_requeued(cluster: Cluster):
    cluster.set("allocated", "node2 node3")
    cluster.set("refuses")
    assert cluster.run(GUARD) == (0, ["lost node1: it runs the batch script; cannot be requeued, so cancelled"])
    assert cluster.words("requests") == ["requeue 7"] * 5 + ["scancel 7"]


def test_single_node_has_no_guard(tmp_path: Path):
    cluster = Cluster(tmp_path, "node1")
    assert cluster.run(GUARD) == (0, [])
    assert cluster.words("steps") == []
