"""launch/doctor.py in an intact environment, and with each defect that a test can produce."""

import shutil
import subprocess
from pathlib import Path
from typing import List, Sequence

import pytest

from tests.support.gpus import A100, GTX680, driver_source
from tests.support.launchers import ENVIRONMENT, LEFTOVERS, horovodrun, mpirun
from tests.support.layered import LayeredEnvironment
from tests.support.programs import ROOT, run

DOCTOR = str(ROOT / "launch/doctor.py")
# If the tests themselves run under a launcher or in a Slurm step, these variables must not reach the doctor.
ALONE = {"HOROVOD_RANK": None, "OMPI_COMM_WORLD_RANK": None, "PMI_RANK": None, "SLURM_STEP_NUM_TASKS": None}


def examine(
    *arguments: str, launcher: Sequence[str] = (), python: str = "python", **env: str
) -> "subprocess.CompletedProcess[str]":
    argv = [*launcher, python, DOCTOR, *arguments]
    return run(argv, env={**ALONE, **ENVIRONMENT, "PYTHONPATH": str(ROOT), **env}, timeout=90)


def marked(result: "subprocess.CompletedProcess[str]", mark: str) -> List[str]:
    """Return the lines of the report that begin with a mark, without horovodrun's prefix."""
    lines = (line.split(">:", 1)[-1] for line in result.stdout.splitlines())
    return [line for line in lines if line.startswith(mark)]


@pytest.mark.slow
def test_intact_environment_without_a_launcher_has_no_errors() -> None:
    result = examine()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "\033" not in result.stdout
    topics = {line.split()[1] for line in marked(result, "ok")}
    assert {
        "python",
        "numpy",
        "mpi4py",
        "mxnet",
        "horovod",
        "MPI",
        "world",
        "allreduce",
        "cores",
        "device",
        "processor",
    } <= topics
    for fact in (
        "mxnet      1.9.1",
        "0.28.1, controllers gloo mpi",
        "1 worker, no launcher, over gloo",
        " GFLOP/s, oneDNN ",
        "no errors, no warnings",
    ):
        assert fact in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "world"),
    [(horovodrun("gloo", 2), "2 workers, horovodrun, over gloo"), (mpirun(2), "2 workers, mpirun, over mpi")],
    ids=["horovodrun-gloo", "mpirun"],
)
def test_two_workers_are_reported_once(launcher: List[str], world: str) -> None:
    result = examine(launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(world) == 1  # rank 0 alone reports
    assert "the sum of 1 to 2 over all workers is 3" in result.stdout


@pytest.mark.slow
def test_unexpected_workers_and_controller_are_failures() -> None:
    result = examine("--workers", "2", "--controller", "mpi")
    assert result.returncode == 1
    assert "--workers 2: Horovod found 1" in marked(result, "FAIL")[0]
    assert "--controller mpi: Horovod does not use it" in marked(result, "FAIL")[1]


@pytest.mark.slow
def test_variables_of_an_ended_launcher_are_named() -> None:
    result = examine(OMPI_COMM_WORLD_RANK="1", OMPI_COMM_WORLD_SIZE="2")
    assert (result.returncode, result.stderr) == (1, "")
    (line,) = marked(result, "FAIL")
    assert "OMPI_COMM_WORLD_RANK=1 and OMPI_COMM_WORLD_SIZE=2 are left over from a job of mpirun" in line


@pytest.mark.slow
def test_variables_of_an_ended_single_worker_do_no_harm() -> None:
    result = examine(**LEFTOVERS, OMP_NUM_THREADS="1,2")
    assert (result.returncode, result.stderr) == (0, ""), result.stdout + result.stderr
    assert "1 worker, no launcher, over gloo" in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "text", "reported"),
    [
        ("numpy", "raise ImportError('no numpy here')", "no numpy here"),
        ("mpi4py", "raise ModuleNotFoundError('no mpi4py here')", "no mpi4py here"),
        ("mxnet", "raise OSError('libquadmath.so.0: cannot open shared object file')", "libquadmath.so.0"),
        ("horovod", "raise ImportError('no horovod here')", "no horovod here"),
    ],
)
def test_package_that_cannot_be_imported_is_a_failure(tmp_path: Path, package: str, text: str, reported: str) -> None:
    environment = LayeredEnvironment(tmp_path)
    environment.package(package, text)
    result = examine(python=str(environment.python))
    assert result.returncode == 1
    assert reported in next(line for line in marked(result, "FAIL") if package in line)
    assert "-> run launch/setup.sh" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr


@pytest.mark.slow
def test_too_new_numpy_is_a_failure(tmp_path: Path) -> None:
    environment = LayeredEnvironment(tmp_path)
    environment.package("numpy", "__version__ = '1.26.4'\n")
    result = examine(python=str(environment.python))
    assert result.returncode == 1
    line = next(line for line in marked(result, "FAIL") if "numpy" in line)
    assert "1.26.4" in line
    assert "needs 1.23.5 or an earlier one" in line


@pytest.mark.slow
def test_unused_gpu_is_reported(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stub of libcuda.so.1 needs a C compiler, and there is none")
    (tmp_path / "cuda.c").write_text(driver_source([GTX680, A100]))
    command = [compiler, "-shared", "-fPIC", "-w", "-o", "libcuda.so.1", "cuda.c"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    result = examine(LD_LIBRARY_PATH=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "GTX 680, has compute capability 3.0" in marked(result, "warn")[0]
    assert any(f"{A100.name}, compute capability 8.0; not used" in line for line in marked(result, "ok"))
