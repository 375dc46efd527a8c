"""Where the launchers of an experiment place the workers."""

from typing import List, Optional

import pytest

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import Host
from lstm_dist.experiments.launchers import UNLIMITED, Horovodrun, Srun


@pytest.mark.parametrize(
    ("per_node", "number", "requested"),
    [(None, 4, ["--nodes=2"]), (None, 2, ["--nodes=1"]), (1, 2, ["--nodes=2", "--ntasks-per-node=1"])],
)
def test_srun_spreads_the_tasks_over_as_many_nodes_as_they_need(
    per_node: Optional[int], number: int, requested: List[str]
):
    launcher = Srun(tasks=4, per_node=2, nodes=2).varied(per_node, None)
    command = launcher.train_command(number, [])
    assert [word for word in command if word.startswith(("--nodes", "--ntasks-per"))] == requested
    assert f"--ntasks={number}" in command
    assert launcher.max_workers == (2 if per_node else 4)


def test_hosts_are_filled_up_to_the_workers_per_node():
    launcher = Horovodrun(Workers(6, (Host("a", 4), Host("b", 2)), "mpi"))
    assert (launcher.max_workers, launcher.varied(3, None).max_workers, launcher.varied(1, None).max_workers) == (
        6,
        5,
        2,
    )
    assert "a:3,b:1" in launcher.varied(3, "gloo").train_command(4, [])
    assert "--gloo" in launcher.varied(3, "gloo").train_command(4, [])
    assert launcher.varied(3, None).varied(4, None).train_command(4, []) == launcher.train_command(
        4, []
    ), "not narrowed"
    assert Horovodrun(Workers(1)).varied(2, None).max_workers == UNLIMITED
