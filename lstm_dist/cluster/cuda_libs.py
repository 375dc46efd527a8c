"""Loading of the CUDA libraries from PyPI that MXNet for GPUs needs, without an LD_LIBRARY_PATH."""

import contextlib
import ctypes
from importlib import metadata
from pathlib import Path

from lstm_dist.errors import ExitStatus, UserError

DRIVER = "libcuda.so.1"
# The libraries that libmxnet.so links to, dependencies first, relative to the folder nvidia/ of NVIDIA's packages.
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
    """Load LIBRARIES into this process, where MXNet finds them by name; do nothing if they are not installed.

    A library that is missing or fails to load is skipped: MXNet searches for it elsewhere and reports the failure.
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
    """Check for NVIDIA's driver if the environment is one for GPUs, because MXNet cannot be loaded without it.

    Raises:
        UserError: when the driver is missing.
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
            "GPUs, or set up an environment for CPUs in another clone, with launch/setup.sh without --gpu",
            ExitStatus.NO_INPUT,
        ) from None
