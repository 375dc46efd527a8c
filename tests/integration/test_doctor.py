"""launch/doctor.py, in health and with each illness that can be brought about here."""

import shutil
import subprocess
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Dict, List, Sequence

import pytest

from lstm_dist.cluster.devices import Gpu
from tests.integration.launchers import ENVIRONMENT, horovodrun, mpirun
from tests.integration.programs import ROOT, run
from tests.unit.test_device import A100, DRIVER, GTX680, H100, RTX3090

DOCTOR = ["python", str(ROOT / "launch/doctor.py")]
# Where the tests themselves run under a launcher, or in a Slurm step, the doctor must not see it.
ALONE = {"HOROVOD_RANK": None, "OMPI_COMM_WORLD_RANK": None, "PMI_RANK": None, "SLURM_STEP_NUM_TASKS": None}


def examine(*arguments: str, launcher: Sequence[str] = (), **env: str) -> "subprocess.CompletedProcess[str]":
    return run([*launcher, *DOCTOR, *arguments], env={**ALONE, **ENVIRONMENT, "PYTHONPATH": None, **env}, timeout=90)


def marked(result: "subprocess.CompletedProcess[str]", mark: str) -> List[str]:
    """The report's lines with a mark, without the prefix of horovodrun."""
    lines = (line.split(">:", 1)[-1] for line in result.stdout.splitlines())
    return [line for line in lines if line.startswith(mark)]


@pytest.mark.slow
def test_health_without_a_launcher() -> None:
    result = examine()
    assert result.returncode == 0, result.stdout + result.stderr
    assert "Traceback" not in result.stderr
    assert "\033" not in result.stdout
    topics = {line.split()[1] for line in marked(result, "ok")}
    assert {"python", "numpy", "mpi4py", "mxnet", "horovod", "MPI", "world", "allreduce", "cores", "device"} <= topics
    for fact in ("mxnet      1.9.1", "0.28.1, controllers gloo mpi", "1 worker, no launcher, over gloo", "all is well"):
        assert fact in result.stdout


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "world"),
    [(horovodrun("gloo", 2), "2 workers, horovodrun, over gloo"), (mpirun(2), "2 workers, mpirun, over mpi")],
    ids=["horovodrun-gloo", "mpirun"],
)
def test_health_of_two(launcher: List[str], world: str) -> None:
    result = examine(launcher=launcher)
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count(world) == 1  # rank 0 alone reports
    assert "the sum of 1 to 2 over all workers is 3" in result.stdout


@pytest.mark.slow
def test_the_expected_workers_and_controller() -> None:
    result = examine("--workers", "2", "--controller", "mpi")
    assert result.returncode == 1
    assert "there should be 2 workers, Horovod found 1" in marked(result, "FAIL")[0]
    assert "does not use mpi" in marked(result, "FAIL")[1]


@pytest.mark.slow
def test_workers_that_each_believe_to_be_alone() -> None:
    result = examine(OMPI_COMM_WORLD_RANK="0", OMPI_COMM_WORLD_SIZE="2")
    assert result.returncode == 1
    (line,) = marked(result, "FAIL")
    assert "mpirun started 2 processes, and each believes to be alone" in line
    assert "horovodrun" in result.stdout.split(line)[1].splitlines()[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("package", "text", "told"),
    [
        ("numpy", "raise ImportError('no numpy here')", "no numpy here"),
        ("mpi4py", "raise ModuleNotFoundError('no mpi4py here')", "no mpi4py here"),
        ("mxnet", "raise OSError('libquadmath.so.0: cannot open shared object file')", "libquadmath.so.0"),
        ("horovod", "raise ImportError('no horovod here')", "no horovod here"),
    ],
)
def test_a_package_that_cannot_be_imported(tmp_path: Path, package: str, text: str, told: str) -> None:
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text(text)
    result = examine(PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    assert told in next(line for line in marked(result, "FAIL") if package in line)
    assert "-> run launch/setup.sh" in result.stdout
    assert "Traceback" not in result.stdout + result.stderr
    assert "PYTHONPATH=" in marked(result, "warn")[0]


@pytest.mark.slow
def test_a_numpy_that_is_too_new(tmp_path: Path) -> None:
    (tmp_path / "numpy").mkdir()
    (tmp_path / "numpy/__init__.py").write_text("__version__ = '1.26.4'\n")
    result = examine(PYTHONPATH=str(tmp_path))
    assert result.returncode == 1
    line = next(line for line in marked(result, "FAIL") if "numpy" in line)
    assert "1.26.4" in line
    assert "before 1.24" in line


@pytest.mark.slow
def test_a_gpu_that_is_there_and_not_used(tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stub of libcuda.so.1 needs a C compiler, and there is none")
    table = '{"NVIDIA H100", 9, 0}, {"NVIDIA A100", 8, 0},'
    (tmp_path / "cuda.c").write_text(DRIVER % {"gpus": table, "init": 0})
    command = [compiler, "-shared", "-fPIC", "-w", "-o", "libcuda.so.1", "cuda.c"]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=60)
    result = examine(LD_LIBRARY_PATH=str(tmp_path))
    assert result.returncode == 0, result.stdout
    assert "NVIDIA H100, has compute capability 9.0" in marked(result, "warn")[0]
    assert any("NVIDIA A100, compute capability 8.0; not used" in line for line in marked(result, "ok"))


# ---- findings from given facts ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def doctor() -> ModuleType:
    from lstm_dist.programs import doctor

    return doctor


def facts(doctor: ModuleType, rank: int, **other: Any) -> Any:
    given: Dict[str, Any] = {"host": "n1", "local_rank": rank, "versions": "mxnet 1.9.1", "cores": range(4)}
    given.update({"threads": 2, "with_cuda": False, "gpus": [], **other})
    return doctor.Facts(rank, **given)


def test_threads_that_share_cores(doctor: ModuleType) -> None:
    findings: List[Any] = []
    doctor.check_cores(findings, [facts(doctor, rank) for rank in range(2)])
    doctor.check_cores(findings, [facts(doctor, rank) for rank in range(3)])
    doctor.check_cores(findings, [facts(doctor, rank, cores=[rank]) for rank in range(2)])
    doctor.check_cores(findings, [facts(doctor, rank, host=f"n{rank}", threads=4) for rank in range(2)])
    assert [finding.mark for finding in findings] == ["ok", "warn", "warn", "ok", "ok"]
    assert "6 threads of 3 workers on 4 cores" in findings[1].text
    assert "OMP_NUM_THREADS=1" in findings[1].remedy


def test_a_binding_that_leaves_one_core_to_many_threads(doctor: ModuleType) -> None:
    findings: List[Any] = []
    world = [facts(doctor, 0, cores=[0]), facts(doctor, 1, cores=[1, 2, 3])]
    doctor.check_cores(findings, world)
    assert "binds the 2 threads of rank 0 to 1" in findings[0].text
    assert "--bind-to none" in findings[0].remedy


def devices(doctor: ModuleType, *workers: Sequence[Gpu]) -> List[Any]:
    findings: List[Any] = []
    world = [facts(doctor, rank, with_cuda=True, gpus=gpus) for rank, gpus in enumerate(workers)]
    doctor.check_devices(findings, world)
    return findings


def test_devices_by_local_rank(doctor: ModuleType) -> None:
    both = [A100, RTX3090]
    assert [finding.mark for finding in devices(doctor, both, both)] == ["ok", "ok"]
    assert [finding.mark for finding in devices(doctor, [A100], [A100])] == ["ok", "ok"]  # each has one of its own
    *_, shared = devices(doctor, both, both, both)
    assert shared.mark == "warn"
    assert "which rank 0 uses as well" in shared.text


@pytest.mark.parametrize("gpu", [H100, GTX680])
def test_gpus_without_machine_code_are_refused_by_name(doctor: ModuleType, gpu: Gpu) -> None:
    (finding,) = devices(doctor, [gpu])
    assert finding.mark == "FAIL"
    assert gpu.name in finding.text
    assert "--device cpu" in finding.remedy


def test_hosts_with_different_versions(doctor: ModuleType) -> None:
    findings: List[Any] = []
    doctor.check_alike(findings, [facts(doctor, 0), facts(doctor, 1, host="n2", versions="mxnet 1.8.0")])
    assert findings[0].mark == "FAIL"
    assert "rank 1 on n2 has mxnet 1.8.0" in findings[0].text


def test_two_mpis_in_one_process(doctor: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1 /opt/ompi/lib/libmpi.so.40.30.4\n"
        "7f02-7f03 r-xp 00000000 08:01 2 /usr/lib/libmpi_cxx.so.40\n"
        "7f04-7f05 r-xp 00000000 08:01 3 /usr/lib/libmpich.so.12\n"
    )
    monkeypatch.setattr(doctor, "open", lambda *_, **__: maps.open(encoding="utf-8"), raising=False)
    findings: List[Any] = []
    doctor.check_one_mpi(findings)
    assert findings[0].mark == "FAIL"
    assert "/opt/ompi/lib/libmpi.so.40.30.4 and /usr/lib/libmpich.so.12" in findings[0].text


def world(rank: int, size: int) -> Any:
    def say(value: object) -> Any:
        return lambda: value

    return SimpleNamespace(
        rank=say(rank), size=say(size), mpi_enabled=say(True), COMM_WORLD=SimpleNamespace(rank=rank, size=size)
    )


def test_who_is_there(doctor: ModuleType) -> None:
    launch = doctor.Launch("srun", 1, 4, 1, 2)

    def found(hvd: Any, mpi: Any) -> Any:
        findings: List[Any] = []
        doctor.check_world(findings, launch, hvd, mpi)
        return findings[0]

    assert found(world(1, 4), world(1, 4)).mark == "ok"
    alone = found(world(0, 1), world(0, 1))
    assert alone.mark == "FAIL"
    assert "srun started 4 processes, and each believes to be alone" in alone.text
    assert "srun --mpi=pmix" in alone.remedy
    assert "Horovod found 2" in found(world(0, 2), world(0, 2)).text
    assert "mpi4py is rank 0 of 1, Horovod 1 of 4" in found(world(1, 4), world(0, 1)).text
