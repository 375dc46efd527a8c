"""Loading of the CUDA libraries from PyPI packages, with stub libraries."""

import ctypes
import os
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Dict

import pytest

from lstm_dist.cluster import cuda_libs
from lstm_dist.errors import ExitStatus, UserError
from tests.support.programs import ROOT


def installed(monkeypatch: pytest.MonkeyPatch, packages: Dict[str, Path]) -> None:
    def distribution(name: str) -> SimpleNamespace:
        if name not in packages:
            raise metadata.PackageNotFoundError(name)
        return SimpleNamespace(locate_file=lambda file: packages[name] / file)

    monkeypatch.setattr(metadata, "distribution", distribution)


def test_loaded_libraries_are_found_by_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("libraries of our own need a C compiler, and there is none")
    folder = tmp_path / "nvidia" / "nccl" / "lib"
    folder.mkdir(parents=True)
    (folder / "nccl.c").write_text("int lstm_dist_test_symbol(void) { return 42; }\n")
    command = [compiler, "-shared", "-Wl,-soname,libnccl.so.2", "-o", "libnccl.so.2", "nccl.c"]
    subprocess.run(command, cwd=folder, check=True, timeout=60)
    (tmp_path / "nvidia" / "cudnn" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "cudnn" / "lib" / "libcudnn.so.8").write_text("no library")  # invalid, so it is skipped
    installed(monkeypatch, {"nvidia-cuda-runtime-cu11": tmp_path})
    with pytest.raises(AttributeError):
        ctypes.CDLL(None).lstm_dist_test_symbol  # noqa: B018
    cuda_libs.load()
    assert ctypes.CDLL("libnccl.so.2").lstm_dist_test_symbol() == 42
    assert ctypes.CDLL(None).lstm_dist_test_symbol() == 42


def test_libraries_are_loaded_after_their_dependencies(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    needed = (
        "libcudart.so.11.0 libnvrtc.so.11.2 libcublasLt.so.11 libcublas.so.11 libcufft.so.10 libcurand.so.10 "
        "libcusolver.so.11 libcudnn.so.8 libnccl.so.2 libnvToolsExt.so.1"
    )
    for name in cuda_libs.LIBRARIES:
        (tmp_path / "nvidia" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "nvidia" / name).touch()
    loaded = []
    monkeypatch.setattr(ctypes, "CDLL", lambda path, mode: loaded.append((Path(path).name, mode)))
    installed(monkeypatch, {"nvidia-cuda-runtime-cu11": tmp_path})
    cuda_libs.load()
    assert loaded == [(name, ctypes.RTLD_GLOBAL) for name in needed.split()]


def test_package_loads_the_libraries_before_mxnet_is_imported(tmp_path: Path) -> None:
    (tmp_path / "nvidia_cuda_runtime_cu11-11.8.dist-info").mkdir()
    (tmp_path / "nvidia_cuda_runtime_cu11-11.8.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: nvidia-cuda-runtime-cu11\nVersion: 11.8\n"
    )
    (tmp_path / "nvidia" / "nccl" / "lib").mkdir(parents=True)
    (tmp_path / "nvidia" / "nccl" / "lib" / "libnccl.so.2").touch()
    program = (
        "import ctypes, sys\n"
        "ctypes.CDLL = lambda path, mode: print(path, 'mxnet' in sys.modules)\n"
        "import lstm_dist\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    assert done.stdout == f"{tmp_path}/nvidia/nccl/lib/libnccl.so.2 False\n", done.stderr


def test_without_the_packages_nothing_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    installed(monkeypatch, {})
    monkeypatch.setattr(ctypes, "CDLL", lambda *_: pytest.fail("loads something"))
    cuda_libs.load()


def test_mxnet_for_gpus_requires_the_driver(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    installed(monkeypatch, {"mxnet-cu112": tmp_path})
    monkeypatch.setattr(cuda_libs, "DRIVER", "libnowhere.so.1")
    with pytest.raises(UserError, match="this machine has no NVIDIA driver") as caught:
        cuda_libs.require_driver()
    assert caught.value.status == ExitStatus.NO_INPUT
    installed(monkeypatch, {})
    cuda_libs.require_driver()
