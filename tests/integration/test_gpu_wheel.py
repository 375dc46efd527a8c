"""The environment for GPUs that launch/setup.sh --gpu creates, with a stub in place of NVIDIA's driver.

The set-up downloads 2 GB and compiles Horovod for NCCL, so these tests run only with LSTM_DIST_TEST_GPU_WHEEL=1.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Dict, Tuple

import pytest

from tests.support.launchers import ENVIRONMENT
from tests.support.outcomes import same_bits
from tests.support.programs import ROOT, TINY, run

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(3000),
    pytest.mark.xdist_group("gpu_wheel"),
    pytest.mark.skipif(
        "LSTM_DIST_TEST_GPU_WHEEL" not in os.environ,
        reason="downloads 2 GB: LSTM_DIST_TEST_GPU_WHEEL=1 runs it (a folder there keeps the environment)",
    ),
]

# The driver functions that libmxnet.so links by name, and those that device.py calls. In the stub, all of them report
# that there is no GPU.
NO_DEVICE = 100
ASKED = (
    "cuInit cuDeviceGetCount cuDeviceGet cuDevicePrimaryCtxRetain cuGetErrorString cuGraphKernelNodeGetParams "
    "cuGraphNodeGetType cuLaunchKernel cuModuleGetFunction cuModuleLoadData cuModuleLoadDataEx cuModuleUnload"
).split()


@pytest.fixture(scope="module")
def clone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the repository, set up for GPUs on a machine without a driver."""
    kept = Path(os.environ["LSTM_DIST_TEST_GPU_WHEEL"])
    folder = kept if kept.is_absolute() else tmp_path_factory.mktemp("clone") / "lstm_dist"
    ignored = shutil.ignore_patterns(".venv", ".venv.d", ".git", "runs", "logs", "*_cache", "__pycache__")
    shutil.copytree(ROOT, folder, ignore=ignored, dirs_exist_ok=True)
    # Without the tests' own environment on PATH, because its MPI would be taken for the machine's, and with an nvcc of
    # the machine that does not work, because none of them is to be used.
    broken = tmp_path_factory.mktemp("broken")
    (broken / "nvcc").write_text("#!/bin/sh\nexit 1\n")
    (broken / "nvcc").chmod(0o755)
    found = (p for p in os.environ["PATH"].split(os.pathsep) if not p.startswith(sys.prefix))
    path = os.pathsep.join([str(broken), *found])
    done = run([str(folder / "launch/setup.sh"), "--gpu"], env={"PYTHON": None, "PATH": path}, timeout=2400)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Dict[str, str]:
    """Return environment variables with which the loader finds a stub driver that reports no GPU."""
    folder = tmp_path_factory.mktemp("driver")
    (folder / "cuda.c").write_text("".join(f"int {name}(void) {{ return {NO_DEVICE}; }}\n" for name in ASKED))
    compiler = ["cc", "-shared", "-fPIC", "-o", "libcuda.so.1", "cuda.c"]
    subprocess.run(compiler, cwd=folder, check=True, timeout=60)
    return {**ENVIRONMENT, "LD_LIBRARY_PATH": str(folder)}


def test_missing_driver_is_reported_in_one_line(clone: Path, tmp_path: Path) -> None:
    for command in ([f"{clone}/.venv/bin/python", f"{clone}/jobs/train.py"], [f"{clone}/launch/local.sh"]):
        done = run([*command, f"--run-dir={tmp_path}/run"])
        assert done.returncode == 66
        assert done.stderr.startswith(
            "error: this machine has no NVIDIA driver (libcuda.so.1), and this environment is one"
        )
        assert done.stderr.count("\n") == 1
    done = run([f"{clone}/.venv/bin/python", f"{clone}/launch/doctor.py"])
    assert done.returncode == 1
    assert "libcuda.so.1" in done.stdout
    assert "start on a node with GPUs: this environment was set up for them" in done.stdout


def test_libraries_are_found_and_no_gpu_is_visible(clone: Path, stub: Dict[str, str]) -> None:
    done = run([f"{clone}/.venv/bin/python", f"{clone}/launch/doctor.py"], env=stub)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "built with CUDA CUDNN NCCL" in done.stdout
    assert "controllers gloo mpi, GPU operations cuda nccl\n" in done.stdout
    assert "every worker: CPU" in done.stdout
    refused = run([f"{clone}/.venv/bin/python", f"{clone}/jobs/train.py", "--device=gpu"], env=stub)
    assert refused.returncode == 2
    assert "error: --device gpu: no GPU is visible: see nvidia-smi" in refused.stderr


def test_horovod_needs_the_same_cuda_as_mxnet(clone: Path) -> None:
    (library,) = clone.glob(".venv/lib/python3*/site-packages/horovod/mxnet/mpi_lib*.so")
    command = ["readelf", "--dynamic", "--wide", str(library)]
    dynamic = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout
    needed = re.findall(r"NEEDED.*\[(.*)\]", dynamic)
    assert [name for name in needed if name.startswith(("libcu", "libnccl"))] == ["libnccl.so.2", "libcudart.so.11.0"]
    (path,) = re.findall(r"R(?:UN)?PATH.*\[(.*)\]", dynamic)
    assert all(str(clone) in os.path.realpath(folder) for folder in path.split(":") if "cuda" in folder)


@pytest.mark.parametrize("launcher", [("horovodrun", "--gloo"), ("horovodrun", "--mpi"), ("mpirun",)], ids=" ".join)
def test_two_workers_are_connected(clone: Path, stub: Dict[str, str], launcher: Tuple[str, ...]) -> None:
    program, *options = launcher
    command = [f"{clone}/.venv/bin/{program}", *options, "-np", "2", f"{clone}/.venv/bin/python"]
    path = f"{clone}/.venv/bin{os.pathsep}{os.environ['PATH']}"  # horovodrun starts mpirun
    done = run([*command, f"{clone}/launch/doctor.py", "--workers", "2"], env={**stub, "PATH": path}, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the sum of 1 to 2 over all workers is 3" in done.stdout


COMPILE_KERNELS = """
import mxnet as mx
from lstm_dist.cuda.module import RtcModule
from lstm_dist.cuda.source import KERNELS, read_source
from lstm_dist.model.cuda_recurrence import files_of

for files in (["arrays"], files_of(False), files_of(True)):
    source = read_source(files, HIDDEN=256)
    assert set(RtcModule(source, mx.gpu(0)).kernels) == set(source.kernels)
    print(*source.kernels, sep="\\n")
mx.rtc.CudaModule("void f() { y = 1; }")
"""


def test_mxnet_compiles_the_kernels(clone: Path, stub: Dict[str, str]) -> None:
    done = run([f"{clone}/.venv/bin/python", "-I", "-c", COMPILE_KERNELS], env=stub)
    assert {"scale", "cell_forward", "persistent_backward", "sgd_update"} <= set(done.stdout.split())
    assert 'error: identifier "y" is undefined' in done.stderr  # of the last line, which is not CUDA C
    assert done.returncode == 1


@pytest.mark.parametrize("workers", [1, 2])
def test_gpu_wheel_on_the_cpu_is_bit_identical_to_the_cpu_wheel(
    clone: Path, stub: Dict[str, str], song_file: Path, tmp_path: Path, workers: int
) -> None:
    flags = (*TINY, "--epochs=1", f"--corpus={song_file}")
    for name, root in (("gpu", clone), ("cpu", ROOT)):
        command = [f"{root}/.venv/bin/python", f"{root}/jobs/train.py", *flags, f"--run-dir={tmp_path}/{name}"]
        if workers > 1:
            command = [f"{root}/.venv/bin/mpirun", "-np", str(workers), *command]
        done = run(command, env=stub if name == "gpu" else ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    assert '"mxnet-cu112": "1.9.1"' in (tmp_path / "gpu/run.json").read_text()
    same_bits(tmp_path / "cpu", tmp_path / "gpu")
