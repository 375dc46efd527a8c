"""slurm/train.sbatch continues in its allocation when a node is lost, and is requeued when too few are left."""

import re
from pathlib import Path
from typing import Callable, Dict, Iterator

import pytest

from tests.support.network import wait_until
from tests.support.outcomes import same_trajectory
from tests.support.programs import epochs
from tests.support.slurm_cluster import Cluster, Ended, Reference

pytestmark = [pytest.mark.slow, pytest.mark.elastic, pytest.mark.xdist_group("slurm")]

LOST = 3  # node3; node1 also runs slurmctld


@pytest.fixture(autouse=True)
def _whole_cluster(cluster: Cluster) -> Iterator[None]:
    """Restore the cluster after each test."""
    yield
    cluster.restore_node(LOST)
    wait_until(lambda: cluster.idle() == len(cluster.network.hosts), "idle nodes", 60)


def lose_node(
    cluster: Cluster, reference: Reference, run_dir: Path, words: str, env: Dict[str, str], lose: Callable[[str], None]
) -> Ended:
    """Submit a job with these flags of sbatch, call `lose` with its id after three epochs, and return how it ended."""
    flags = (*reference.flags, "--checkpoint-every=1s", f"--run-dir={run_dir}")
    job = cluster.submit(*words.split(), "--", *flags, env=env)
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    lose(job)
    return cluster.end(job)


def completed(reference: Reference, run_dir: Path, ended: Ended) -> None:
    """Check that a job ended well, with the trajectory of one that lost no node."""
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert "\nresumed after step " in ended.log
    same_trajectory(reference.alone, run_dir)


def test_job_continues_on_the_nodes_that_are_left(cluster: Cluster, reference: Reference, tmp_path: Path):
    ended = lose_node(
        cluster, reference, tmp_path / "run", "-w node[2-4] -N3", {"MIN_NODES": "2"}, lambda _: cluster.lose_node(LOST)
    )
    completed(reference, tmp_path / "run", ended)
    assert re.findall("^lost .*", ended.log, re.MULTILINE) == [
        "lost node3: continuing on 2 of 3 nodes: node2,node4 (MIN_NODES=2)"
    ]
    assert "; workers 3 -> 2: the trajectory is the same up to floating-point rounding\n" in ended.log
    assert "start 2" not in ended.log


def test_spare_node_takes_the_place_of_a_lost_one(cluster: Cluster, reference: Reference, tmp_path: Path):
    ended = lose_node(
        cluster, reference, tmp_path / "run", "-N4", {"SPARE_NODES": "1"}, lambda _: cluster.lose_node(LOST)
    )
    completed(reference, tmp_path / "run", ended)
    assert re.findall("^lost .*", ended.log, re.MULTILINE) == [
        "lost node3: continuing on 3 of 3 nodes: node1,node2,node4 (MIN_NODES=3)"
    ]
    assert ended.log.count("\n3 workers over mpi") == 2
    assert "start 2" not in ended.log


def lose_and_restore(cluster: Cluster, job: str) -> None:
    """Lose the node until the job is in the queue."""
    cluster.lose_node(LOST)
    wait_until(lambda: cluster.fact(job, "JobState") == "PENDING", "the queue", 60)
    cluster.restore_node(LOST)


def test_job_with_too_few_nodes_is_requeued(cluster: Cluster, reference: Reference, tmp_path: Path):
    ended = lose_node(
        cluster, reference, tmp_path / "run", "-w node[2-3] -N2", {}, lambda job: lose_and_restore(cluster, job)
    )
    completed(reference, tmp_path / "run", ended)
    assert "\nlost node3: not continuing on 1 of 2 nodes: node2 (MIN_NODES=2)\nrequeued, for start 2\n" in ended.log
    assert ended.log.count("\n2 workers over mpi") == 2


def test_loss_of_the_node_of_the_batch_script_requeues_the_job(cluster: Cluster, reference: Reference, tmp_path: Path):
    """Under --no-kill Slurm does not; see start_guard in slurm/nodes.sh."""
    env = {"MIN_NODES": "1"}
    ended = lose_node(
        cluster, reference, tmp_path / "run", "-w node[3-4] -N2", env, lambda job: lose_and_restore(cluster, job)
    )
    completed(reference, tmp_path / "run", ended)
    assert ended.log.count("\nlost node3: it runs the batch script; requeued\n") == 1
    assert ended.log.count("\n2 workers over mpi") == 2


def test_batch_size_per_worker_is_refused_with_fewer_nodes(cluster: Cluster, tmp_path: Path):
    flags = ("--batch-size-per-worker=2", f"--run-dir={tmp_path}/run")
    ended = cluster.end(cluster.submit("-N2", "--", *flags, env={"MIN_NODES": "1"}))
    assert (ended.state, ended.status) == ("FAILED", 78), ended.log
    assert ended.log == (
        "error: MIN_NODES=1: with fewer nodes, --batch-size-per-worker changes the batch: give --global-batch-size\n"
    )
