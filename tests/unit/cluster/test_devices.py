"""Detection of GPUs with a stub of the CUDA driver, and the choice of a worker's device."""

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Callable, List, Sequence, Tuple

import pytest

from lstm_dist.cluster import devices
from lstm_dist.cluster.cuda_libs import DRIVER as DRIVER_NAME
from lstm_dist.cluster.devices import Gpu, choose, gpu_of, identity, memory, unsupported, visible_gpus
from lstm_dist.errors import UserError
from tests.support.gpus import A100, DRIVER_CUDA, GTX680, GTX980, H100, RTX3090, driver_source

Compile = Callable[..., Path]


@pytest.fixture
def driver(tmp_path: Path) -> Compile:
    """Return a function that compiles a libcuda.so.1 which reports the given GPUs."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stub of libcuda.so.1 needs a C compiler, and there is none")

    def compile_driver(gpus: Sequence[Gpu], init: int = 0, cuda: int = DRIVER_CUDA) -> Path:
        source, library = tmp_path / "cuda.c", tmp_path / DRIVER_NAME
        source.write_text(driver_source(gpus, init, cuda))
        command = [str(compiler), "-shared", "-fPIC", "-w", "-o", str(library), str(source)]
        subprocess.run(command, check=True, timeout=60)
        return library

    return compile_driver


def test_visible_gpus_are_those_of_the_driver(driver: Compile) -> None:
    gpus = [A100, RTX3090, GTX980]
    assert visible_gpus(str(driver(gpus))) == gpus


@pytest.mark.parametrize(("gpus", "init"), [([A100], 100), ([], 0)], ids=["cuInit-fails", "no-device"])
def test_no_gpus_if_the_driver_reports_none(driver: Compile, gpus: List[Gpu], init: int) -> None:
    assert visible_gpus(str(driver(gpus, init))) == []


def test_no_gpus_without_a_driver(tmp_path: Path) -> None:
    assert visible_gpus(str(tmp_path / "libcuda.so.1")) == []


def test_driver_is_found_by_the_dynamic_loader(driver: Compile) -> None:
    folder = driver([H100]).parent
    script = "from lstm_dist.cluster.devices import visible_gpus; print(visible_gpus())"
    command, variables = [sys.executable, "-c", script], {"LD_LIBRARY_PATH": str(folder)}
    run = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == str([H100])


def test_cuda_of_the_driver_is_read(driver: Compile) -> None:
    assert [gpu.cuda for gpu in visible_gpus(str(driver([A100, RTX3090], cuda=11040)))] == [11040, 11040]


@pytest.mark.parametrize("capability", [(5, 2), (5, 3), (6, 0), (7, 5), (8, 0), (8, 9), (9, 0), (10, 0), (12, 1)])
@pytest.mark.parametrize("cuda", [11080, 12000, 13010])
def test_gpus_since_5_2_are_supported(capability: Tuple[int, int], cuda: int) -> None:
    assert unsupported(replace(A100, capability=capability, cuda=cuda)) is None


@pytest.mark.parametrize("capability", [(3, 0), (3, 7), (4, 9), (5, 0), (5, 1)])
def test_gpus_before_5_2_are_refused_by_name(capability: Tuple[int, int]) -> None:
    refusal = unsupported(replace(RTX3090, capability=capability))
    assert refusal
    assert refusal.reason == "GPU 1, RTX 3090, has compute capability {}.{}: the kernels need at least 5.2".format(
        *capability
    )
    assert "CUDA_VISIBLE_DEVICES" in refusal.remedy


@pytest.mark.parametrize(("cuda", "shown"), [(11070, "11.7"), (11020, "11.2"), (10010, "10.1"), (0, "0.0")])
def test_driver_that_cannot_load_the_kernels_is_refused(cuda: int, shown: str) -> None:
    refusal = unsupported(replace(H100, cuda=cuda))
    assert refusal
    for part in ("GPU 0, NVIDIA H100", f"driver for CUDA {shown},", "compiled by CUDA 11.8"):
        assert part in refusal.reason
    assert "driver 520 or later" in refusal.remedy


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool, Sequence[Gpu]], None]:
    """Return a function that replaces MXNet and the driver by stubs with the given properties."""

    def set_up(with_cuda: bool, gpus: Sequence[Gpu]) -> None:
        features = SimpleNamespace(is_enabled=lambda name: with_cuda and name == "CUDA")
        mxnet = SimpleNamespace(
            runtime=SimpleNamespace(Features=lambda: features), cpu=lambda: "cpu", gpu=lambda index: f"gpu {index}"
        )
        monkeypatch.setitem(sys.modules, "mxnet", mxnet)
        monkeypatch.setattr(devices, "visible_gpus", lambda: list(gpus))

    return set_up


@pytest.mark.parametrize(
    ("with_cuda", "gpus", "asked", "local_rank", "chosen"),
    [
        (False, [], "auto", 0, "cpu"),
        (False, [A100], "auto", 0, "cpu"),
        (True, [], "auto", 0, "cpu"),
        (True, [A100], "auto", 0, "gpu 0"),
        (True, [A100], "cpu", 0, "cpu"),
        (True, [GTX680], "cpu", 0, "cpu"),
        (True, [H100], "auto", 0, "gpu 0"),
        (True, [A100, RTX3090], "auto", 1, "gpu 1"),
        (True, [A100, RTX3090], "gpu", 2, "gpu 0"),
        (True, [A100, RTX3090, GTX980], "gpu", 5, "gpu 2"),
    ],
)
def test_choose_selects_the_device(
    machine: Callable[..., None], with_cuda: bool, gpus: List[Gpu], asked: str, local_rank: int, chosen: str
) -> None:
    machine(with_cuda, gpus)
    assert str(choose(asked, local_rank)) == chosen


@pytest.mark.parametrize(
    ("with_cuda", "gpus", "asked", "local_rank", "message_part"),
    [
        (False, [A100], "gpu", 0, "without CUDA"),
        (True, [], "gpu", 0, "no GPU is visible"),
        (True, [GTX680], "gpu", 0, "GTX 680"),
        (True, [GTX680], "auto", 0, "GTX 680"),
        (True, [A100, replace(GTX980, capability=(5, 0))], "auto", 1, "GTX 980"),
        (True, [replace(H100, cuda=11040)], "gpu", 0, "driver for CUDA 11.4"),
    ],
)
def test_choose_refuses_missing_or_unsupported_gpus(
    machine: Callable[..., None], with_cuda: bool, gpus: List[Gpu], asked: str, local_rank: int, message_part: str
) -> None:
    machine(with_cuda, gpus)
    with pytest.raises(UserError, match=message_part) as refusal:
        choose(asked, local_rank)
    message = str(refusal.value)
    assert message.startswith(f"--device {asked}: ")
    assert "--device cpu" in message
    assert "\n" not in message


def test_choose_with_the_real_mxnet() -> None:
    mx = pytest.importorskip("mxnet", reason="MXNet is not installed")
    assert choose("cpu", 0) == mx.cpu()


def test_gpu_of_a_context_is_the_one_that_mxnet_numbers(machine: Callable[..., None]) -> None:
    machine(True, [A100, RTX3090])
    context = SimpleNamespace(device_type="gpu", device_id=1)
    assert gpu_of(context) == RTX3090
    assert identity(context) == "RTX 3090 at 0000:11:00.0"
    assert gpu_of(SimpleNamespace(device_type="cpu", device_id=0)) is None
    assert identity(SimpleNamespace(device_type="cpu", device_id=0)) == ""


def test_memory_is_an_equal_share_of_the_hosts_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    mx = pytest.importorskip("mxnet", reason="MXNet is not installed")
    alone = memory(mx.cpu())
    assert 2**26 < alone <= os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for name, value in (("RANK", 1), ("SIZE", 4), ("LOCAL_RANK", 1), ("LOCAL_SIZE", 2)):
        monkeypatch.setenv(f"HOROVOD_{name}", str(value))
    assert memory(mx.cpu()) == alone // 2
