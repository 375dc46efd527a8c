"""launch/cluster.sh loses a host, continues on the others, and takes it back."""

import os
import re
import signal
import time
from pathlib import Path
from typing import Iterator

import pytest

from lstm_dist.files import is_claimed
from lstm_dist.run.status import read_status
from tests.support.elastic_job import STALL, ElasticJob
from tests.support.network import Network, require_tools, wait_until
from tests.support.programs import ROOT, run

pytestmark = [
    pytest.mark.slow, pytest.mark.elastic, pytest.mark.xdist_group("hosts"), pytest.mark.timeout(240)
]  # fmt: skip

ALL = "node1:1,node2:1,node3:1"
SOON = ("--discover-every=1s", "--grow-every=2s")


@pytest.fixture
def links(network: Network) -> Iterator[Network]:
    """Return the network, whose cables are plugged in again at the end."""
    yield network
    for number in (1, 2, 3):
        network.set_link(number, "up")


def end(job: ElasticJob) -> None:
    """Stop the job, and check that it has left nothing and is on the undisturbed trajectory."""
    assert job.stop() == 75, job.output()
    assert job.left(seconds=15) == []
    assert not job.has_lost_a_commit()
    assert job.difference() < 1e-4


def test_job_continues_on_the_same_hosts_after_a_killed_rank(
    real: Path, links: Network, song_file: Path, tmp_path: Path
):
    assert real.exists()
    flags = ("-H", "node1:1,node2:1", "--max-restarts=3", f"--corpus={song_file}")
    with ElasticJob(links.hosts[0], tmp_path, *flags) as job:
        (victim,) = job.workers("node2")
        os.kill(victim, signal.SIGKILL)
        died = time.monotonic()
        line = job.await_line("restarting from step")
        job.await_commits(1, "the first steps after the death")
        seconds = time.monotonic() - died
        print(f"killed rank: first commit after {seconds:.1f} s; the first start took {job.first_start:.1f} s")
        assert seconds < job.allowed(8), job.output()
        assert re.fullmatch(
            r"error: rank 1 on node2 exited without reporting an error \(at step \d+ or later\); restarting from step "
            r"\d+ \(restart 1 of 3\)",
            line,
        )
        end(job)


def test_job_continues_without_a_host_that_is_cut_off_and_takes_it_back(
    real: Path, links: Network, song_file: Path, tmp_path: Path
):
    assert real.exists()
    flags = ("-H", ALL, "--min-workers=2", *SOON, f"--corpus={song_file}")
    with ElasticJob(links.hosts[0], tmp_path, *flags) as job:
        links.set_link(3, "down")
        cut = time.monotonic()
        line = job.await_line("lost")
        job.await_commits(1, "the first steps on two hosts")
        seconds = time.monotonic() - cut
        print(f"host cut off: first commit after {seconds:.1f} s; the first start took {job.first_start:.1f} s")
        assert seconds < job.allowed(STALL + 10), job.output()
        expected = r"host node3 lost after step [\d,]+: continuing on 2 of 3 workers from step [\d,]+ \(it "
        assert re.match(expected, line), line
        links.set_link(3, "up")
        line = job.await_line("is back")
        assert re.fullmatch(r"node3 is back: continuing on 3 workers from step [\d,]+", line)
        seconds = job.await_commits(1, "the first steps on three hosts")
        print(f"host returned: first commit {seconds:.1f} s after the line that says so")
        assert seconds < job.allowed(8), job.output()
        assert job.output().count("error: ") <= 3  # of the workers that lost their peer
        assert "Traceback" not in job.output()
        end(job)


def test_loss_of_the_host_of_rank_0_whose_root_still_holds_the_run_directory(
    real: Path, links: Network, song_file: Path, tmp_path: Path
):
    """The stale root is suspended when its host is cut off, and awakes while the next attempt trains."""
    assert real.exists()
    flags = ("-H", "node2:1,node3:1", "--min-workers=1", "--grow-every=1h", f"--corpus={song_file}")
    with ElasticJob(links.hosts[0], tmp_path, *flags) as job:
        (root,) = job.workers("node2")
        os.kill(root, signal.SIGSTOP)
        links.set_link(2, "down")
        assert is_claimed(job.run_dir)
        line = job.await_line("lost")
        assert re.match(
            r"host node2 lost after step [\d,]+: continuing on 1 of 2 workers from step [\d,]+ \(", line
        ), line
        job.await_commits(2, "the first steps on the other host")
        assert root in job.workers("node2")
        os.kill(root, signal.SIGCONT)
        wait_until(lambda: root not in job.workers("node2"), "the end of the stale root", 60)
        status = read_status(job.run_dir)
        assert (status["host"], status["state"]) == ("node3", "running")
        job.await_commits(2, "further steps")
        links.set_link(2, "up")
        end(job)


def test_stale_workers_of_a_host_that_is_back_are_ended(real: Path, links: Network, song_file: Path, tmp_path: Path):
    """They are suspended, so that they do not end by themselves."""
    assert real.exists()
    flags = ("-H", "node1:1,node2:1", "--min-workers=1", *SOON, f"--corpus={song_file}")
    with ElasticJob(links.hosts[0], tmp_path, *flags) as job:
        (stale,) = job.workers("node2")
        os.kill(stale, signal.SIGSTOP)
        links.set_link(2, "down")
        job.await_line("host node2 lost")
        links.set_link(2, "up")
        job.await_line("node2 is back: continuing on 2 workers")
        job.await_commits(1, "steps on both hosts")
        assert stale not in job.workers("node2")
        assert len(job.workers("node2")) == 1
        end(job)


def test_discovered_host_joins_and_a_program_that_misbehaves_is_reported_once(
    real: Path, links: Network, song_file: Path, tmp_path: Path
):
    assert real.exists()
    program, plan = tmp_path / "hosts.sh", tmp_path / "plan"
    program.write_text(f"#!/bin/sh\n. {plan}\n")
    program.chmod(0o755)
    plan.write_text("echo node1:1\n")
    flags = ("--discover-hosts", str(program), *SOON, f"--corpus={song_file}")
    with ElasticJob(links.hosts[0], tmp_path, *flags) as job:
        says = {
            "echo no network >&2; exit 1": r"has failed with status 1 \(no network\)",
            "echo what is this": "'what is this' should be a host",
            "true": "has printed no host",
            "sleep 600": "has not ended within 10 s",
        }
        for script, message in says.items():
            plan.write_text(f"{script}\n")
            assert job.await_line(message).endswith("; the job goes on with the hosts that it has")
        plan.write_text("echo node1:1; echo node2:1\n")
        assert re.match(r"node2 joins: continuing on 2 workers from step [\d,]+", job.await_line("node2 joins"))
        job.await_commits(1, "steps on both hosts")
        assert job.output().count("warning: --discover-hosts") == len(says)
        end(job)


@pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 4,
    reason="six workers need 4 cores, or hold up other tests: python -m tests.soak --only=elastic --share=0.15",
)
@pytest.mark.timeout(1200)
def test_hosts_that_disappear_and_return_for_three_minutes_change_nothing(real: Path):
    assert real.exists()
    require_tools()
    done = run(["python", "-m", "tests.soak", "--only=elastic", "--share=0.15"], cwd=ROOT, timeout=1100)
    print(done.stdout)
    assert done.returncode == 0, done.stdout + done.stderr
