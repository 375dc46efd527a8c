"""The checks of launch/doctor.py with simulated facts, and its report."""

import json
import re
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Sequence

import mxnet as mx
import pytest

from lstm_dist.cluster.devices import Gpu
from lstm_dist.cluster.launch_env import Launch
from lstm_dist.cluster.processor import Processor
from lstm_dist.diagnosis import installation, products, workers
from lstm_dist.diagnosis.report import CheckReport, CheckResult
from lstm_dist.diagnosis.workers import RankFacts
from tests.support.gpus import A100, GTX680, H100, RTX3090

ROOT = Path(__file__).resolve().parents[3]


def facts(rank: int, **other: Any) -> RankFacts:
    given: Dict[str, Any] = {"host": "n1", "local_rank": rank, "versions": "mxnet 1.9.1", "cores": range(4)}
    given.update({"threads": 2, "with_cuda": False, "gpus": [], **other})
    return RankFacts(rank, **given)


def results(check: Callable[..., None], *given: Any) -> List[CheckResult]:
    report = CheckReport()
    check(report, *given)
    return report.results


def test_more_threads_than_cores_are_reported() -> None:
    (alone,) = results(workers.check_cores, [facts(rank) for rank in range(2)])
    (shared,) = results(workers.check_cores, [facts(rank) for rank in range(3)])
    (bound,) = results(workers.check_cores, [facts(rank, cores=[rank]) for rank in range(2)])
    apart = results(workers.check_cores, [facts(rank, host=f"n{rank}", threads=4) for rank in range(2)])
    assert [result.status for result in (alone, shared, bound, *apart)] == ["ok", "warn", "warn", "ok", "ok"]
    assert "6 threads of 3 workers on 4 cores: oversubscribed" in shared.text
    assert "OMP_NUM_THREADS=1" in shared.remedy


def test_binding_of_several_threads_to_one_core_is_reported() -> None:
    (result,) = results(workers.check_cores, [facts(0, cores=[0]), facts(1, cores=[1, 2, 3])])
    assert "binds the 2 threads of rank 0 to 1" in result.text
    assert "--bind-to none" in result.remedy


def devices(*gpus_of_workers: Sequence[Gpu]) -> List[CheckResult]:
    world = [facts(rank, with_cuda=True, gpus=gpus) for rank, gpus in enumerate(gpus_of_workers)]
    return results(workers.check_devices, world)


def test_gpu_shared_by_two_workers_is_reported() -> None:
    both = [A100, RTX3090]
    assert [result.status for result in devices(both, both)] == ["ok", "ok"]
    assert [result.status for result in devices([A100], [A100])] == ["ok", "ok"]  # each worker has a GPU of its own
    *_, shared = devices(both, both, both)
    assert shared.status == "warn"
    assert "which rank 0 uses as well" in shared.text


def test_gpus_that_cannot_run_the_kernels_are_refused_by_name() -> None:
    for gpu, remedy in ((GTX680, "--device cpu"), (replace(H100, cuda=11040), "driver 520 or later")):
        (result,) = devices([gpu])
        assert result.status == "FAIL"
        assert gpu.name in result.text
        assert remedy in result.remedy
    assert [result.status for result in devices([H100])] == ["ok"]


def test_hosts_with_different_versions_are_reported() -> None:
    (result,) = results(workers.check_versions, [facts(0), facts(1, host="n2", versions="mxnet 1.8.0")])
    assert result.status == "FAIL"
    assert "rank 1 on n2 has mxnet 1.8.0" in result.text


def test_facts_are_unchanged_by_json() -> None:
    mine = facts(1, cores=[0, 2], with_cuda=True, gpus=[A100, RTX3090])
    assert RankFacts.from_json(json.loads(json.dumps(mine.to_json()))) == mine


@pytest.mark.parametrize(
    ("operations", "status"), [({"cuda": True, "nccl": 22105}, "ok"), ({"cuda": False, "nccl": 0}, "warn")]
)
def test_horovod_without_nccl_is_reported_for_gpus(
    monkeypatch: pytest.MonkeyPatch, operations: Dict[str, int], status: str
) -> None:
    import horovod.mxnet as hvd

    for name, value in operations.items():
        monkeypatch.setattr(hvd, f"{name}_built", lambda value=value: value)
    (result,) = results(installation.check_horovod, True, "gloo")
    assert result.status == status
    if status == "ok":
        assert result.text.endswith("GPU operations cuda nccl")
    else:
        assert "gradients pass through host memory" in result.text
        assert "launch/setup.sh --gpu" in result.remedy
    (without_gpus,) = results(installation.check_horovod, False, "gloo")
    assert without_gpus.status == "ok"


def test_two_mpi_libraries_in_one_process_are_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    maps = tmp_path / "maps"
    maps.write_text(
        "7f00-7f01 r-xp 00000000 08:01 1 /opt/ompi/lib/libmpi.so.40.30.4\n"
        "7f02-7f03 r-xp 00000000 08:01 2 /usr/lib/libmpi_cxx.so.40\n"
        "7f04-7f05 r-xp 00000000 08:01 3 /usr/lib/libmpich.so.12\n"
    )
    monkeypatch.setattr(installation, "open", lambda *_, **__: maps.open(encoding="utf-8"), raising=False)
    (result,) = results(installation.check_one_mpi)
    assert result.status == "FAIL"
    assert "/opt/ompi/lib/libmpi.so.40.30.4 and /usr/lib/libmpich.so.12" in result.text


def test_required_versions_are_those_of_setup_py() -> None:
    text = (ROOT / "setup.py").read_text(encoding="utf-8")
    assert installation.pinned_version("mxnet") == re.search(r'MXNET = "(.*)"', text)[1]
    for package in ("numpy", "horovod"):
        assert f'"{package}=={installation.pinned_version(package)}"' in text
    (_, first), (_, last) = installation.supported_pythons()
    assert f'python_requires=">=3.{first},<3.{last + 1}"' in text


def test_no_version_is_required_if_the_package_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation, "_PACKAGE", "lstm-dist-nowhere")
    assert installation.pinned_version("numpy") == ""
    assert results(installation.check_python)[0].status == "FAIL"
    assert results(installation.check_numpy)[0].status == "ok"


@pytest.mark.parametrize(("in_use", "named"), [("Zen", "OpenBLAS (kernel Zen)"), ("", "BLAS")])
def test_processor_kernel_and_speed_are_reported(monkeypatch: pytest.MonkeyPatch, in_use: str, named: str) -> None:
    monkeypatch.setattr(products, "this_processor", lambda: Processor("EPYC", "AuthenticAMD", frozenset()))
    monkeypatch.setattr(products, "kernel_in_use", lambda: in_use)
    (result,) = results(products.check_speed, mx)
    speeds = re.fullmatch(rf"EPYC, {re.escape(named)} (\d+) GFLOP/s, oneDNN (\d+) GFLOP/s", result.text)
    assert speeds is not None
    assert min(map(int, speeds.groups())) > 0


@pytest.mark.parametrize(("named", "status"), [("haswell", "ok"), ("Cooperlake", "warn"), ("", "ok")])
def test_kernel_that_openblas_does_not_have_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, named: str, status: str
) -> None:
    monkeypatch.setattr(
        products, "this_processor", lambda: Processor("Xeon", "GenuineIntel", frozenset({"avx2", "fma"}))
    )
    monkeypatch.setattr(products, "kernel_in_use", lambda: "Haswell")
    monkeypatch.setenv("OPENBLAS_CORETYPE", named)
    (result,) = results(products.check_speed, mx)
    assert result.status == status
    if status == "warn":
        assert result.text.endswith("; OPENBLAS_CORETYPE=Cooperlake is not a kernel of MXNet's OpenBLAS")
        assert result.remedy == "unset it, or name Haswell"


def test_speed_counts_two_operations_for_each_pair_of_elements() -> None:
    waits = SimpleNamespace(nd=SimpleNamespace(waitall=lambda: time.sleep(0.01)))
    assert products.gigaflops(waits, lambda: None) == pytest.approx(2 * 512**3 / 0.01 / 1e9, rel=0.1)


def world(rank: int, size: int) -> Any:
    def say(value: object) -> Any:
        return lambda: value

    return SimpleNamespace(
        rank=say(rank), size=say(size), mpi_enabled=say(True), COMM_WORLD=SimpleNamespace(rank=rank, size=size)
    )


def test_disagreement_of_ranks_and_sizes_is_reported() -> None:
    def found(hvd: Any, mpi: Any) -> CheckResult:
        return results(workers.check_world, Launch("srun", 1, 4, 1, 2), hvd, mpi)[0]

    assert found(world(1, 4), world(1, 4)).status == "ok"
    alone = found(world(0, 1), world(0, 1))
    assert alone.status == "FAIL"
    assert "srun started 4 processes, but each runs as an independent job of one worker" in alone.text
    assert "srun --mpi=pmix" in alone.remedy
    assert "Horovod found 2" in found(world(0, 2), world(0, 2)).text
    assert "mpi4py is rank 0 of 1, Horovod 1 of 4" in found(world(1, 4), world(0, 1)).text


@pytest.mark.parametrize(
    ("errors", "warnings", "summary"),
    [(0, 0, "no errors, no warnings"), (1, 0, "1 error, 0 warnings"), (2, 1, "2 errors, 1 warning")],
)
def test_report_ends_with_a_summary(errors: int, warnings: int, summary: str) -> None:
    report = CheckReport()
    report.ok("python", "3.11.7")
    for _ in range(errors):
        report.fail("world", "text", "remedy")
    for _ in range(warnings):
        report.warn("cores", "text")
    assert report.render().splitlines()[-1] == summary
