"""The report of a slow start: the current phase, and which workers the others wait for."""

import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Dict, List, Optional

import pytest

from lstm_dist.cluster.launch_env import Launch
from lstm_dist.cluster.startup import NOT_STARTED, PHASES, _name, describe, job_id, phases_on_host

ROOT = Path(__file__).resolve().parents[3]
HOST = socket.gethostname()


@pytest.mark.parametrize(
    ("launch", "phases", "line"),
    [
        (Launch("none", 0, 1, 0, 1), [0], PHASES[0]),
        (Launch("mpirun", 0, 2, 0, 2), [3, 3], f"{PHASES[3]}, all workers"),
        (Launch("mpirun", 0, 2, 0, 2), [1, NOT_STARTED], f"{PHASES[1]}, waiting for rank 1 (not started)"),
        (
            Launch("srun", 0, 4, 0, 4),
            [4, 0, 4, 3],
            f"{PHASES[4]}, waiting for rank 1 ({PHASES[0]}); rank 3 ({PHASES[3]})",
        ),
        (Launch("mpirun", 0, 3, 0, 3), [1, 0, 0], f"{PHASES[1]}, waiting for ranks 1, 2 ({PHASES[0]})"),
        (Launch("srun", 4, 8, 0, 2), [1, 0], f"{PHASES[1]}, waiting for {HOST}: local rank 1 ({PHASES[0]})"),
        (
            Launch("srun", 4, 8, 0, 2),
            [1, 1],
            f"{PHASES[1]}, all 2 workers of {HOST}; if they wait, they wait for other hosts",
        ),
    ],
)
def test_report_names_the_workers_that_the_others_wait_for(launch: Launch, phases: List[int], line: str):
    assert describe(launch, phases) == line


@pytest.mark.parametrize(
    ("launcher", "environ", "job"),
    [
        ("none", {}, None),
        ("horovodrun", {"HOROVOD_GLOO_RENDEZVOUS_ADDR": "a", "HOROVOD_GLOO_RENDEZVOUS_PORT": "1"}, "a 1"),
        ("mpirun", {"PMIX_NAMESPACE": "7"}, "7"),
        ("mpirun", {"OMPI_MCA_ess_base_jobid": "8"}, "8"),
        ("srun", {"SLURM_JOB_ID": "5", "SLURM_STEP_ID": "0"}, "5 0"),
        ("srun", {"SLURM_JOB_ID": "5"}, None),
        ("mpiexec", {}, None),
    ],
)
def test_job_is_identified_by_its_launchers_variables(launcher: str, environ: Dict[str, str], job: Optional[str]):
    assert job_id(Launch(launcher), environ) == job


def start(local_rank: int, phase: int, job: str) -> "subprocess.Popen[str]":
    """Start one of three workers, which enters the given phase and reports after 0.5 s."""
    code = f"""
import sys
from lstm_dist.cluster.launch_env import Launch
from lstm_dist.cluster.startup import PHASES, Startup
startup = Startup(Launch("mpirun", {local_rank}, 3, {local_rank}, 3), {job!r}, 0.5, 60)
for phase in PHASES[1 : {phase} + 1]: startup.enter(phase)
print("here", flush=True)
sys.stdin.readline()
startup.report("released")
print("held", flush=True)
startup.finish()
print("over", flush=True)
sys.stdin.readline()
"""
    return subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


def test_one_worker_reports_for_its_host_and_phases_are_removed():
    job = f"test {time.monotonic_ns()}"
    workers = [start(1, 2, job), start(2, 1, job)]
    try:
        for worker in workers:
            assert worker.stdout
            assert worker.stdout.readline() == "here\n"
        assert phases_on_host(job, 3) == [NOT_STARTED, 2, 1]
        time.sleep(1)
        said = []
        for worker in workers:
            out, err = worker.communicate("\n\n", timeout=20)
            assert (out[-19:], err) == ("held\nreleased\nover\n", "")
            said.append(out[:-19])
        line = f"{PHASES[2]}, waiting for rank 0 (not started); rank 2 ({PHASES[1]})"
        assert said == [f"still starting after 0 s: {line}\n", ""]
        assert phases_on_host(job, 3) == [NOT_STARTED] * 3
    finally:
        for worker in workers:
            worker.kill()
            worker.wait(timeout=10)


def test_unknown_socket_names_are_ignored(tmp_path: Path):
    """Phases of a later version, and ranks beyond the number of workers that the launcher named, are ignored."""
    job, listing = "a job", tmp_path / "unix"
    row = "0000000000000000: 00000002 00000000 00000000 0002 01 24601 "
    numbers = ((0, 2), (1, len(PHASES)), (2, 1))
    listing.write_text("".join(f"{row}@{_name(job)}/{rank}/{phase}\n" for rank, phase in numbers))
    assert phases_on_host(job, 2, listing) == [2, NOT_STARTED]


def test_quick_start_is_not_reported():
    worker = start(0, 3, f"test {time.monotonic_ns()}")
    assert worker.communicate("\n\n", timeout=20) == ("here\nheld\nreleased\nover\n", "")


def test_watcher_ends_with_its_worker():
    job = f"test {time.monotonic_ns()}"
    worker = start(0, 0, job)
    assert worker.stdout
    worker.stdout.readline()
    watcher = int(Path(f"/proc/{worker.pid}/task/{worker.pid}/children").read_text())
    worker.kill()
    worker.communicate(timeout=10)
    deadline = time.monotonic() + 5
    while Path(f"/proc/{watcher}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.02)
