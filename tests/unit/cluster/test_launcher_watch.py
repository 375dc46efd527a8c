"""Detection of each launcher from its environment variables, and of the end of its process."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Dict

import pytest

from lstm_dist.cluster.launch_env import Launch, detect
from lstm_dist.cluster.launcher_watch import LauncherProcess

HOROVODRUN = {"HOROVOD_RANK": "3", "HOROVOD_SIZE": "4", "HOROVOD_LOCAL_RANK": "1", "HOROVOD_LOCAL_SIZE": "2"}
MPIRUN = {
    "OMPI_COMM_WORLD_RANK": "5",
    "OMPI_COMM_WORLD_SIZE": "6",
    "OMPI_COMM_WORLD_LOCAL_RANK": "2",
    "OMPI_COMM_WORLD_LOCAL_SIZE": "3",
}
MPIEXEC = {"PMI_RANK": "1", "PMI_SIZE": "8", "MPI_LOCALRANKID": "1", "MPI_LOCALNRANKS": "4"}
BATCH_SCRIPT = {"SLURM_PROCID": "0", "SLURM_NTASKS": "4", "SLURM_LOCALID": "0", "SLURM_TASKS_PER_NODE": "2(x2)"}
SRUN = {**BATCH_SCRIPT, "SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4"}
SRUN["SLURM_STEP_TASKS_PER_NODE"] = "2(x2)"


@pytest.mark.parametrize(
    ("environ", "launch"),
    [
        pytest.param({}, Launch("none", 0, 1, 0, 1), id="none"),
        pytest.param(HOROVODRUN, Launch("horovodrun", 3, 4, 1, 2), id="horovodrun"),
        pytest.param(MPIRUN, Launch("mpirun", 5, 6, 2, 3), id="mpirun"),
        pytest.param(MPIEXEC, Launch("mpiexec", 1, 8, 1, 4), id="mpiexec"),
        pytest.param(SRUN, Launch("srun", 3, 4, 1, 2), id="srun"),
        pytest.param(BATCH_SCRIPT, Launch("none", 0, 1, 0, 1), id="batch-script-without-srun"),
        pytest.param({**SRUN, **MPIRUN}, Launch("mpirun", 5, 6, 2, 3), id="mpirun-in-a-slurm-step"),
        pytest.param({**SRUN, **HOROVODRUN}, Launch("horovodrun", 3, 4, 1, 2), id="horovodrun-in-a-slurm-step"),
        pytest.param({**SRUN, **MPIEXEC}, Launch("mpiexec", 1, 8, 1, 4), id="mpiexec-in-a-slurm-step"),
    ],
)
def test_launcher_is_detected_from_its_variables(environ: Dict[str, str], launch: Launch) -> None:
    assert detect(environ) == launch


@pytest.mark.parametrize(("per_node", "local_size"), [("4", 4), ("4(x2)", 4), ("3,2", 3), ("", 1), ("x", 1)])
def test_detect_parses_slurm_task_counts(per_node: str, local_size: int) -> None:
    assert detect({**SRUN, "SLURM_STEP_TASKS_PER_NODE": per_node}).local_size == local_size


@pytest.mark.parametrize("name", list(MPIRUN)[:2])
def test_detect_requires_rank_and_size(name: str) -> None:
    assert detect({**MPIRUN, name: ""}).name == "none"
    assert detect({key: value for key, value in MPIRUN.items() if key != name}).name == "none"


def test_local_rank_and_size_are_optional() -> None:
    assert detect({name: MPIRUN[name] for name in list(MPIRUN)[:2]}) == Launch("mpirun", 5, 6, 0, 1)


def test_detect_reads_os_environ(monkeypatch: pytest.MonkeyPatch) -> None:
    for signs in (HOROVODRUN, MPIRUN, MPIEXEC, SRUN):
        for name in signs:
            monkeypatch.delenv(name, raising=False)
    assert detect() == Launch()
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "1")
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    assert detect().rank == 1


def test_end_of_the_launcher_is_detected(tmp_path: Path) -> None:
    """The end of the shell in which `horovodrun --mpi` runs mpirun is detected.

    horovodrun becomes `sh -c "mpirun ..."`; here, mpirun is a script that outlives this shell.
    """
    worker = "import sys\nfrom lstm_dist.cluster.launcher_watch import LauncherProcess\nlauncher = LauncherProcess()\n"
    worker += "print(launcher.has_ended(), flush=True)\n"
    worker += "sys.stdin.readline()\nprint(launcher.has_ended(), flush=True)\n"
    (tmp_path / "worker.py").write_text(worker)
    mpirun = tmp_path / "mpirun"
    mpirun.write_text(f"#!/bin/sh\n{sys.executable} {tmp_path}/worker.py\ntrue\n")
    mpirun.chmod(0o755)
    env = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(Path(__file__).parents[3])}
    for script, answer in (("mpirun x; true", "True\n"), ("exec mpirun x; true", "False\n")):
        with subprocess.Popen(
            ["/bin/sh", "-c", script], env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE
        ) as shell:
            assert shell.stdin
            assert shell.stdout
            assert shell.stdout.readline() == "False\n"
            if script.startswith("mpirun"):
                shell.kill()
                shell.wait(timeout=5)
            shell.stdin.write("\n")
            shell.stdin.flush()
            assert shell.stdout.readline() == answer


def test_without_a_launcher_no_end_is_reported() -> None:
    assert not LauncherProcess().has_ended()


def test_launcher_that_ended_before_the_worker_started_is_detected() -> None:
    """The worker's shell is then a child of init (PID 1), here of a process in a PID namespace of its own."""
    worker = "from lstm_dist.cluster.launcher_watch import LauncherProcess; print(LauncherProcess().has_ended())"
    script = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}], check=True)"
    space = ["unshare", "--pid", "--fork", "--mount-proc"]
    if os.geteuid() != 0 or subprocess.run([*space, "true"], capture_output=True, check=False).returncode:
        pytest.skip("a first process of our own needs root's right to make namespaces")
    env = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[3])}
    for more, answer in ((HOROVODRUN, "True\n"), ({}, "False\n")):
        for command in ([sys.executable, "-c", script], [sys.executable, "-c", f"{worker}"]):
            run = subprocess.run([*space, *command], env={**env, **more}, capture_output=True, text=True, check=True)
            assert run.stdout == answer
