"""The launchers' own flags: hosts, workers, restarts, and what happens to hosts that are lost."""

from pathlib import Path
from typing import List

import pytest

from lstm_dist.cluster.hosts import Host
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.programs.launch_plan import HostChanges, parse
from lstm_dist.train.command_line import parse_config

TWO = ["-H", "node1:2,node2:2"]


def test_defaults_are_those_of_one_machine_without_restarts():
    plan, rest = parse(["--epochs=3"])
    assert (plan.workers.number, plan.workers.hosts, plan.max_restarts, rest) == (2, (), 0, ["--epochs=3"])
    assert plan.changes == HostChanges()
    assert not plan.changes.may_shrink


def test_job_on_hosts_keeps_its_workers_unless_fewer_are_allowed():
    plan, _ = parse([*TWO, "--max-restarts=2"])
    assert (plan.max_restarts, plan.changes.may_shrink) == (2, False)
    plan, _ = parse([*TWO, "--min-workers", "2", "--wait-for-workers=5m", "--grow-every=90s", "--discover-every=1m"])
    assert plan.max_restarts == 3  # unless given
    assert plan.changes == HostChanges(2, 300.0, None, 60.0, 90.0)
    assert parse([*TWO, "--min-workers=2", "--max-restarts=0"])[0].max_restarts == 0
    assert plan.resume_command(Path("runs/a")).endswith(
        "launch/cluster.sh -H node1:2,node2:2 --gloo --min-workers 2 --wait-for-workers 5m --discover-every 1m "
        "--grow-every 90s --resume --run-dir runs/a"
    )


def test_hosts_are_discovered(tmp_path: Path):
    program = tmp_path / "hosts.sh"
    program.write_text("#!/bin/sh\necho node1:2\necho node2\n")
    program.chmod(0o755)
    plan, _ = parse(["--discover-hosts", str(program), "--mpi"])
    assert plan.workers.hosts == (Host("node1", 2), Host("node2", 1))
    assert (plan.workers.number, plan.max_restarts, plan.changes.may_shrink) == (3, 3, True)
    assert plan.resume_command(Path("runs/a")).endswith(
        f"launch/cluster.sh --mpi --discover-hosts {program} --resume --run-dir runs/a"
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--min-workers=1"], "--min-workers: is for several hosts: give -H or --hostfile as well, or leave it out"),
        (["-n", "2", "--grow-every=1m"], "--grow-every: is for several hosts"),
        ([*TWO, "--min-workers"], "--min-workers '': should be a number of workers from 1 to 9999"),
        ([*TWO, "--min-workers=0"], "--min-workers '0': should be a number of workers from 1 to 9999"),
        ([*TWO, "--min-workers=5"], "--min-workers 5: the hosts have 4 workers: give at most that many"),
        ([*TWO, "--wait-for-workers=10"], "--wait-for-workers '10': should be a time, such as 30s, 10m or 2h"),
        ([*TWO, "--discover-every=x"], "--discover-every 'x': should be a time"),
        ([*TWO, "--grow-every", "0s"], "--grow-every '0s': should be a time"),
        ([*TWO, "--max-restarts=-1"], "--max-restarts '-1': should be a whole number from 0 to 999999"),
        ([*TWO, "--discover-hosts=x"], "--discover-hosts: cannot be combined with -H: give only one of them"),
        (["-n2", "--discover-hosts=x"], "-n: cannot be combined with --discover-hosts, which gives the numbers"),
        (["--discover-hosts=/absent"], "--discover-hosts /absent: cannot be started (No such file or directory)"),
    ],
)
def test_invalid_flag_is_refused_in_one_line(flags: List[str], message: str):
    with pytest.raises(UserError) as caught:
        parse(flags)
    assert str(caught.value).startswith(message)
    assert caught.value.status == ExitStatus.USAGE


def test_batch_that_depends_on_the_number_of_workers_is_refused_if_that_may_change():
    settings = parse_config(["--batch-size-per-worker=8"])
    for flags in (TWO, [*TWO, "--min-workers=4"], [*TWO, "--max-restarts=3"]):
        parse(flags)[0].require_fixed_batch(settings)
    plan, _ = parse([*TWO, "--min-workers=2"])
    plan.require_fixed_batch(parse_config([]))
    with pytest.raises(UserError) as caught:
        plan.require_fixed_batch(settings)
    assert str(caught.value) == (
        "--batch-size-per-worker 8: cannot be combined with --min-workers, as the batch would change with the workers: "
        "give --global-batch-size 32"
    )
