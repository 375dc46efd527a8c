"""The CUDA libraries that MXNet for GPUs needs: those of PyPI, found without an LD_LIBRARY_PATH."""

import contextlib
import ctypes
from importlib import metadata
from pathlib import Path

from lstm_dist.errors import ExitStatus, UserError

DRIVER = "libcuda.so.1"
# Those that libmxnet.so names, each after what it needs itself; under nvidia/, where NVIDIA's packages put them.
LIBRARIES = (
    "cuda_runtime/lib/libcudart.so.11.0",
    "cuda_nvrtc/lib/libnvrtc.so.11.2",
    "cublas/lib/libcublasLt.so.11",
    "cublas/lib/libcublas.so.11",
    "cufft/lib/libcufft.so.10",
    "curand/lib/libcurand.so.10",
    "cusolver/lib/libcusolver.so.11",
    "cudnn/lib/libcudnn.so.8",
    "nccl/lib/libnccl.so.2",
    "nvtx/lib/libnvToolsExt.so.1",
)


def load() -> None:
    """Bring them into this process, where MXNet finds them by their names; nothing where the environment has none.

    One that is missing or does not load is left for MXNet to look for elsewhere, and to complain about.
    """
    try:
        folder = Path(str(metadata.distribution("nvidia-cuda-runtime-cu11").locate_file("nvidia")))
    except metadata.PackageNotFoundError:
        return
    for name in LIBRARIES:
        if (folder / name).is_file():
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(folder / name), ctypes.RTLD_GLOBAL)


def require_driver() -> None:
    """Refuse an environment for GPUs on a machine without NVIDIA's driver, where MXNet cannot be loaded.

    Raises:
        UserError: saying so.
    """
    try:
        metadata.distribution("mxnet-cu112")
    except metadata.PackageNotFoundError:
        return
    try:
        ctypes.CDLL(DRIVER)
    except OSError:
        raise UserError(
            f"this machine has no NVIDIA driver ({DRIVER}), and this environment is one for GPUs: start on a node with "
            "GPUs, or set up one for CPUs in another clone, by launch/setup.sh without --gpu",
            ExitStatus.NO_INPUT,
        ) from None
