"""slurm/train.sbatch, unchanged, submitted with a real sbatch to a real Slurm cluster of four nodes."""

import os
import re
import shlex
import shutil
import sys
import time
from pathlib import Path
from typing import Callable, Dict, List

import pytest

from lstm_dist.run.checkpoint_dir import step_of
from lstm_dist.run.status import read_status
from tests.support.launchers import ENVIRONMENT
from tests.support.network import output, wait_until
from tests.support.outcomes import rows, same_bits, same_trajectory
from tests.support.programs import ROOT, TRAIN, epochs, newest, run
from tests.support.slurm_cluster import Cluster, Ended, Reference

# One group: a single pytest-xdist process runs all of them, so one network and one cluster are enough.
pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("slurm")]

# Variables that mpirun requires from root; a user of a cluster is not root.
ROOTS = {name: value for name, value in ENVIRONMENT.items() if name.startswith("OMPI_ALLOW")}
# For another Python, as modules of a cluster set them; no task must get them.
FOREIGN = {"PYTHONHOME": "/opt/other", "PYTHONWARNINGS": "error"}
STOPPED = re.compile(r"\nstopped by (SIGUSR1|SIGTERM|the file STOP \(Slurm\)) on rank \d after step \d+; ")
EVERY_LAUNCHER = pytest.mark.parametrize("launcher", ["srun", "mpirun", "horovodrun"])


def errors(ended: Ended) -> List[str]:
    return [line for line in ended.log.splitlines() if line.startswith("error: ")]


# Training


def test_two_nodes_follow_the_trajectory_of_one_process(cluster: Cluster, reference: Reference, tmp_path: Path):
    ended = cluster.end(cluster.submit("-N2", "--", *reference.flags, f"--run-dir={tmp_path}/run"))
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert "\n2 workers over mpi on cpu(0)" in ended.log
    assert "error" not in ended.log
    same_trajectory(reference.alone, tmp_path / "run")
    same_bits(reference.pair, tmp_path / "run")


def test_two_nodes_of_two_tasks_follow_the_trajectory_of_one_process(
    cluster: Cluster, reference: Reference, tmp_path: Path
):
    flags = (*reference.flags, "--epochs=6")  # four workers and their communication share two cores here
    assert run([*TRAIN, *flags, f"--run-dir={tmp_path}/alone"], env=ENVIRONMENT).returncode == 0
    ended = cluster.end(cluster.submit("-N2", "--ntasks-per-node=2", "--", *flags, f"--run-dir={tmp_path}/run"))
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert "\n4 workers over mpi on cpu(0)" in ended.log
    same_trajectory(tmp_path / "alone", tmp_path / "run")


@pytest.mark.parametrize("launcher", ["mpirun", "horovodrun"])
def test_other_launchers_are_bit_identical_to_srun(
    cluster: Cluster, reference: Reference, tmp_path: Path, launcher: str
):
    # The same environment under another path, as launch/setup.sh links it when it has replaced another one.
    (tmp_path / ".venv.d").mkdir()
    (tmp_path / ".venv.d" / "1").symlink_to(sys.prefix)
    (tmp_path / "env").symlink_to(".venv.d/1")
    env = {**ROOTS, **FOREIGN, "LAUNCHER": launcher, "LSTM_DIST_ENV": f"{tmp_path}/env"}
    job = cluster.submit("-N2", "--", *reference.flags, "--run-dir", f"{tmp_path}/run", env=env)
    ended = cluster.end(job)
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert f"start 1: {launcher}, 2 tasks" in ended.log
    assert "error" not in ended.log
    assert f" {tmp_path}/.venv.d/1/bin/python " in ended.log
    same_bits(reference.pair, tmp_path / "run")


def test_dry_run_shows_the_job_and_writes_nothing(cluster: Cluster, reference: Reference, tmp_path: Path):
    ended = cluster.end(cluster.submit("-N2", "--", *reference.flags, "--dry-run", f"--run-dir={tmp_path}/run"))
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert ended.log.count("dry run: the job would start as follows") == 1
    assert len(re.findall(r"^    rank [01] +\w+: cpu\(0\)", ended.log, re.M)) == 2, "a row for each node"
    assert "error" not in ended.log
    assert list(tmp_path.iterdir()) == []


def test_default_run_directory_is_named_after_the_job(cluster: Cluster, reference: Reference):
    job = cluster.submit("--job-name=lesson", "--", *reference.flags, "--epochs=1", env=FOREIGN)
    assert cluster.end(job).status == 0
    assert newest(cluster.submit_dir / f"runs/lesson-{job}").exists()


def readmes_commands() -> List[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"(?:LAUNCHER=\w+ )?sbatch -[^#`\n]*[^#`\s]", text)


@pytest.mark.parametrize("command", readmes_commands())
def test_slurm_accepts_the_commands_of_the_readme(cluster: Cluster, command: str):
    script = f". slurm/site.env; {command.replace('sbatch', 'sbatch --test-only', 1)} 2>&1"
    assert "to start at" in cluster.slurm("bash", "-ec", script)


def test_readme_has_three_sbatch_commands():
    assert len(readmes_commands()) == 3


# Stopping and resuming


def go_on(cluster: Cluster, reference: Reference, run_dir: Path, job: str, stop: Callable[[], object]) -> Ended:
    """Stop a job after three epochs; check that it resumes and ends bit-identical to an uninterrupted run."""
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    stop()
    ended = cluster.end(job)
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert ", start 2: " in ended.log
    assert "\nresumed after step " in ended.log
    assert rows(run_dir) == rows(reference.pair)
    same_bits(reference.pair, run_dir)
    return ended


@pytest.mark.parametrize(
    ("launcher", "to"), [("srun", []), ("mpirun", []), ("horovodrun", []), ("mpirun", ["--batch"])]
)
def test_signal_before_the_time_limit_requeues_the_job(
    cluster: Cluster, reference: Reference, tmp_path: Path, launcher: str, to: List[str]
):
    """This holds also for a signal that only the batch script receives, as with --signal=B:USR1@120."""
    run_dir = tmp_path / "run"
    env = {**ROOTS, "LAUNCHER": launcher}
    job = cluster.submit("-N2", "--", *reference.flags, f"--run-dir={run_dir}", env=env)
    ended = go_on(cluster, reference, run_dir, job, lambda: cluster.slurm("scancel", "--signal=USR1", *to, job))
    assert STOPPED.search(ended.log)
    assert "\nrequeued, for start 2\n" in ended.log
    # It may take over the run directory from workers of the first start, which was attempt 1.
    assert f"\nattempt {job}.1000000001\n" in (run_dir / "lock").read_text()


@pytest.mark.parametrize(
    ("partition", "launcher"), [("batch", "srun"), ("batch", "horovodrun"), ("abrupt", "srun"), ("abrupt", "mpirun")]
)
def test_preempted_job_resumes_after_the_urgent_job(
    cluster: Cluster, reference: Reference, tmp_path: Path, partition: str, launcher: str
):
    """Partition batch gives the job time to stop; after an abrupt kill it resumes from its last periodic checkpoint."""
    run_dir, urgent_dir = tmp_path / "run", tmp_path / "urgent"
    where = ("-N2", "-w", "node[1-2]", "-p", partition)
    flags = (*reference.flags, "--checkpoint-every=1epoch", f"--run-dir={run_dir}")
    job = cluster.submit(*where, "--", *flags, env={**ROOTS, "LAUNCHER": launcher})

    def preempt() -> None:
        flags = [*reference.flags, "--epochs=2", f"--run-dir={urgent_dir}"]
        urgent = cluster.submit("-N2", "-w", "node[1-2]", "--exclusive", "-p", "urgent", "--", *flags)
        assert cluster.end(urgent).status == 0
        assert epochs(run_dir) < 28

    ended = go_on(cluster, reference, run_dir, job, preempt)
    assert partition == "abrupt" or STOPPED.search(ended.log)


def test_requeued_job_resumes_with_fewer_nodes(cluster: Cluster, reference: Reference, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = cluster.submit("-N2", "--", *reference.flags, f"--run-dir={run_dir}")
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    cluster.slurm("scancel", "--signal=USR1", job)
    wait_until(lambda: cluster.fact(job, "JobState") == "PENDING", "the queue")
    cluster.slurm("scontrol", "update", f"job={job}", "NumNodes=1", "NumTasks=1")
    ended = cluster.end(job)
    assert ended.status == 0, ended.log
    assert "; workers 2 -> 1: the trajectory is the same up to floating-point rounding\n" in ended.log
    same_trajectory(reference.alone, run_dir)


def without_scontrol(tmp_path: Path) -> Dict[str, str]:
    """Return a PATH with all tools of the batch script except scontrol."""
    tools = tmp_path / "tools"
    tools.mkdir()
    for tool in (
        "bash",
        "sh",
        "srun",
        "sort",
        "paste",
        "sed",
        "grep",
        "rm",
        "sleep",
        "mkdir",
        "sinfo",
        "squeue",
        "timeout",
        "date",
    ):
        (tools / tool).symlink_to(shutil.which(tool) or "")
    return {"PATH": str(tools)}


@pytest.mark.parametrize("why", ["MAX_REQUEUES", "scontrol"])
def test_job_that_cannot_be_requeued_reports_it_and_exits_with_75(
    cluster: Cluster, reference: Reference, tmp_path: Path, why: str
):
    run_dir = tmp_path / "run"
    env = {"MAX_REQUEUES": "1"} if why == "MAX_REQUEUES" else without_scontrol(tmp_path)
    job = cluster.submit("--", *reference.flags, "--epochs=1000", f"--run-dir={run_dir}", env=env)
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    cluster.slurm("scancel", "--signal=USR1", job)
    if why == "MAX_REQUEUES":  # one requeue is allowed
        wait_until(lambda: "\nresumed after step " in cluster.log(job), f"start 2: {cluster.log(job)}", 60)
        cluster.slurm("scancel", "--signal=USR1", job)
    ended = cluster.end(job)
    assert (ended.state, ended.status) == ("FAILED", 75), ended.log
    assert ended.log.count("requeued, for start") == (why == "MAX_REQUEUES")
    assert why in ended.log.splitlines()[-1]
    assert f"submit it again with --resume --run-dir {run_dir}\n" in ended.log


def test_job_stopped_by_a_stop_file_is_not_requeued(cluster: Cluster, reference: Reference, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = cluster.submit("--", *reference.flags, "--epochs=1000", f"--run-dir={run_dir}")
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    (run_dir / "STOP").touch()
    assert cluster.end(job).status == 75
    assert cluster.fact(job, "Restarts") == "0"


def test_cancelled_job_is_not_requeued(cluster: Cluster, reference: Reference, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = cluster.submit("--", *reference.flags, "--epochs=1000", f"--run-dir={run_dir}")
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    cluster.slurm("scancel", job)
    wait_until(lambda: cluster.idle() == 4, "idle nodes")
    time.sleep(7)  # a requeued job would start again within this time
    assert (cluster.fact(job, "JobState"), cluster.fact(job, "Restarts")) == ("CANCELLED", "0")
    status = read_status(run_dir)
    assert (status["state"], status["reason"]) == ("stopped", "SIGTERM")
    assert step_of(newest(run_dir)) == status["step"]


@pytest.mark.parametrize("seconds", [0.3, 1.0, 2.0])
def test_job_signalled_during_startup_completes(cluster: Cluster, reference: Reference, tmp_path: Path, seconds: float):
    run_dir = tmp_path / "run"
    job = cluster.submit("-N2", "--", *reference.flags, "--epochs=3", f"--run-dir={run_dir}")
    wait_until(lambda: "+ srun" in cluster.log(job), "the start", 30)
    time.sleep(seconds)
    cluster.slurm("scancel", "--signal=USR1", job)
    ended = cluster.end(job)
    assert (ended.state, ended.status) == ("COMPLETED", 0), ended.log
    assert epochs(run_dir) == 3


# Failures


def test_killed_task_ends_the_job_and_is_reported(cluster: Cluster, reference: Reference, tmp_path: Path):
    run_dir = tmp_path / "run"
    job = cluster.submit("-N2", "--", *reference.flags, "--epochs=1000", f"--run-dir={run_dir}")
    wait_until(lambda: epochs(run_dir) >= 3, f"three epochs: {cluster.log(job)}", 60)
    killed = time.monotonic()
    cluster.network.hosts[1].output("pkill", "-KILL", "-f", "^[^ ]*python .*train.py")
    ended = cluster.end(job)
    assert time.monotonic() - killed < 15
    assert ended.state == "FAILED"
    assert ended.status not in (0, 75)
    first, *_ = re.findall(r"^srun: error: (.*)$", ended.log, re.MULTILINE)
    assert first == "node2: task 1: Killed"
    assert re.search(
        r"\nall 2 ranks exited without reporting an error \(at step \d+ or later\)\n$", ended.log
    ), ended.log
    assert cluster.fact(job, "Restarts") == "0"


@pytest.mark.parametrize(
    ("sbatch", "env", "status", "message"),
    [
        (
            [],
            {"LSTM_DIST_MPI": "none"},
            78,
            r"LSTM_DIST_MPI=none: does not connect tasks, so each task would run as an independent job of one worker",
        ),
        (
            [],
            {"LSTM_DIST_MPI": "pmix_v9"},
            78,
            r"LSTM_DIST_MPI=pmix_v9: this Slurm does not support it, so each task",
        ),
        (["--gpus-per-node=1"], {}, 78, r"--ntasks-per-node=2: this job has 1 GPUs per node, and each task needs one"),
        (
            [],
            {"LSTM_DIST_ENV": "/nowhere"},
            66,
            r"/nowhere/bin/python: no environment on node1: run launch/setup",
        ),
        (
            [],
            {"LSTM_DIST": "/nowhere"},
            66,
            r"/nowhere is not the repository: submit from there, or give its path with ",
        ),
        ([], {"LSTM_DIST_MODULES": "gcc/1"}, 78, r"LSTM_DIST_MODULES=gcc/1: cannot be loaded"),
        ([], {"MAX_REQUEUES": "x"}, 78, r"MAX_REQUEUES=x: should be a whole number from 0 to 999999"),
        ([], {"SPARE_NODES": "1"}, 78, r"SPARE_NODES=1: should be a whole number, smaller than that of the nodes, 1$"),
        ([], {"SPARE_NODES": "a few"}, 78, r"SPARE_NODES=a few: should be a whole number, smaller than "),
        (
            ["-N2"],
            {"MIN_NODES": "3"},
            78,
            r"MIN_NODES=3: should be a whole number from 1 to that of the nodes that train, 2$",
        ),
        (["-N2"], {"MIN_NODES": "0"}, 78, r"MIN_NODES=0: should be a whole number from 1 to that "),
        ([], {"LAUNCHER": "bsub"}, 78, r"LAUNCHER=bsub: should be srun, mpirun or horovodrun"),
    ],
)
def test_invalid_setting_is_reported_in_one_line_at_the_start(
    cluster: Cluster,
    reference: Reference,
    tmp_path: Path,
    sbatch: List[str],
    env: Dict[str, str],
    status: int,
    message: str,
):
    flags = (*reference.flags, f"--run-dir={tmp_path}/run")
    started = time.monotonic()
    ended = cluster.end(cluster.submit("--ntasks-per-node=2", *sbatch, "--", *flags, env=env))
    assert time.monotonic() - started < 15
    assert (ended.state, ended.status) == ("FAILED", status), ended.log
    (line,) = errors(ended)
    assert re.match(f"error: {message}", line)
    assert not (tmp_path / "run").exists()


def test_srun_without_pmix_is_reported_once(cluster: Cluster, reference: Reference, tmp_path: Path):
    command = shlex.join([sys.executable, *TRAIN[1:], *reference.flags, f"--run-dir={tmp_path}/run"])
    said = cluster.slurm("sh", "-c", f"srun -N2 --mpi=none {command} 2>&1")
    lines = [line for line in said.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, said
    assert lines[0].startswith(
        "error: srun started 2 tasks without PMIx, so each would run as a single-worker job: use srun"
    )
    assert not (tmp_path / "run").exists()


def test_scripts_outside_slurm_report_how_to_submit_them():
    for script, how in (("train", "sbatch -N 2 slurm/train.sbatch"), ("scaling", "jobs/scale.py --slurm-array")):
        done = run(["bash", str(ROOT / f"slurm/{script}.sbatch")])
        assert done.returncode == 2
        (line,) = done.stderr.splitlines()
        assert line.startswith("error: not a ")
        assert how in line


def test_invalid_flag_sets_the_status_of_the_job(cluster: Cluster, reference: Reference):
    ended = cluster.end(cluster.submit("-N2", "--", *reference.flags, "--epoch=2"))
    assert (ended.state, ended.status) == ("FAILED", 2), ended.log
    assert errors(ended) == ["error: --epoch: no such flag, did you mean --epochs?; --help lists them all"]


@EVERY_LAUNCHER
def test_run_directory_that_is_not_shared_is_refused(cluster: Cluster, reference: Reference, launcher: str):
    run_dir = cluster.network.local / "run"
    words = ("-N2", "-w", "node[3-4]", "--", *reference.flags, f"--run-dir={run_dir}")
    ended = cluster.end(cluster.submit(*words, env={**ROOTS, "LAUNCHER": launcher}))
    assert (ended.state, ended.status) == ("FAILED", 73), ended.log
    assert [line for line in errors(ended) if "stopped because another" not in line] == [
        f"error: --run-dir {run_dir}: node4 cannot see it: give a folder on a file system that all nodes share"
    ]


def test_every_directive_and_export_has_a_comment():
    text = (ROOT / "slurm/train.sbatch").read_text()
    for line in text.splitlines():
        if line.startswith("#SBATCH") or re.match(r"\s*export ", line):
            assert re.search(r"  # \w", line), line
    assert os.access(ROOT / "slurm/train.sbatch", os.R_OK)
    output("bash", "-n", str(ROOT / "slurm/train.sbatch"))
