"""The device of a worker: the GPUs that the driver reports, and the choice of one by local rank."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, List, NamedTuple, Optional, Tuple

from lstm_dist.cluster.cuda_libs import DRIVER
from lstm_dist.cluster.launch_env import detect
from lstm_dist.errors import UserError

if TYPE_CHECKING:
    import mxnet as mx

# CU_DEVICE_ATTRIBUTE_{MULTIPROCESSOR_COUNT,COMPUTE_CAPABILITY_MAJOR,COMPUTE_CAPABILITY_MINOR}
_PROCESSORS, _CAPABILITY_MAJOR, _CAPABILITY_MINOR = 16, 75, 76

# The kernels are compiled at run time to PTX for the oldest GPUs, from which the driver makes code for any later one.
# A driver reads PTX of its own version of CUDA and of earlier ones.
_OLDEST_CAPABILITY = (5, 2)
_OLDEST_CUDA, _OLDEST_DRIVER = 11080, 520  # the CUDA of the compiler, NVRTC, and the first driver for it


@dataclass(frozen=True)
class Gpu:
    """One GPU, numbered as in MXNet: among those that CUDA_VISIBLE_DEVICES allows.

    Attributes:
        bus: PCI bus id, the same for every process of the host.
        processors: number of its multiprocessors.
        cuda: version of CUDA that the driver supports, as 11080 for 11.8.
    """

    index: int
    name: str
    capability: Tuple[int, int]
    bus: str
    processors: int
    cuda: int


class Refusal(NamedTuple):
    """Why a GPU cannot be used, with its name, and what to do."""

    reason: str
    remedy: str


def visible_gpus(driver: str = DRIVER) -> List[Gpu]:
    """Return the GPUs that the driver reports to this process; none if the driver is missing or broken."""
    try:
        cuda = ctypes.CDLL(driver)
    except OSError:
        return []
    count, version = ctypes.c_int(), ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    cuda.cuDriverGetVersion(ctypes.byref(version))
    return [_describe(cuda, index, version.value) for index in range(count.value)]


def _describe(cuda: ctypes.CDLL, index: int, version: int) -> Gpu:
    device, name, bus = ctypes.c_int(), ctypes.create_string_buffer(256), ctypes.create_string_buffer(32)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetPCIBusId(bus, len(bus), device)

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        cuda.cuDeviceGetAttribute(ctypes.byref(value), number, device)
        return value.value

    return Gpu(
        index,
        name.value.decode(errors="replace"),
        (attribute(_CAPABILITY_MAJOR), attribute(_CAPABILITY_MINOR)),
        bus.value.decode(errors="replace"),
        attribute(_PROCESSORS),
        version,
    )


def unsupported(gpu: Gpu) -> Optional[Refusal]:
    """Return why the kernels cannot run on this GPU; None if they can."""
    if gpu.capability < _OLDEST_CAPABILITY:
        capability, oldest = _dotted(gpu.capability), _dotted(_OLDEST_CAPABILITY)
        reason = f"GPU {gpu.index}, {gpu.name}, has compute capability {capability}: the kernels need at least {oldest}"
        return Refusal(reason, "use --device cpu, or another GPU through CUDA_VISIBLE_DEVICES")
    if gpu.cuda < _OLDEST_CUDA:
        reason = (
            f"GPU {gpu.index}, {gpu.name}, has a driver for CUDA {_cuda(gpu.cuda)}, which cannot load the kernels: "
            f"they are compiled by CUDA {_cuda(_OLDEST_CUDA)}"
        )
        return Refusal(reason, f"install NVIDIA's driver {_OLDEST_DRIVER} or later, or use --device cpu")
    return None


def _dotted(version: Tuple[int, int]) -> str:
    return "{}.{}".format(*version)


def _cuda(version: int) -> str:
    return _dotted((version // 1000, version % 1000 // 10))


def gpu_of(ctx: "mx.Context") -> Optional[Gpu]:
    """Return the GPU of a context; None for a CPU."""
    return visible_gpus()[ctx.device_id] if ctx.device_type == "gpu" else None


def identity(ctx: "mx.Context") -> str:
    """Return the name and PCI bus id of a context's GPU; empty for a CPU."""
    gpu = gpu_of(ctx)
    return f"{gpu.name} at {gpu.bus}" if gpu else ""


def memory(ctx: "mx.Context") -> int:
    """Return the bytes that a worker may use: all of its GPU's memory, or an equal share of the host's.

    The host's memory is the physical memory or the container's limit, whichever is smaller.
    """
    if ctx.device_type == "gpu":
        import mxnet as mx

        return int(mx.context.gpu_memory_info(ctx.device_id)[1])
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for name in ("memory.max", "memory/memory.limit_in_bytes"):  # of cgroups version 2 and 1
        with contextlib.suppress(OSError, ValueError):
            limits.append(int(Path("/sys/fs/cgroup", name).read_text()))
    return min(limits) // detect().local_size


def choose(device: str, local_rank: int) -> "mx.Context":
    """Return the MXNet context for `--device`, "auto", "cpu" or "gpu"; local workers take the visible GPUs in turn.

    "auto" selects a GPU if MXNet was built with CUDA and one is visible.

    Raises:
        UserError: if "gpu" finds no GPU, or the kernels cannot run on this worker's GPU.
    """
    import mxnet as mx

    with_cuda = mx.runtime.Features().is_enabled("CUDA")
    gpus = visible_gpus() if device != "cpu" and with_cuda else []
    if device == "gpu" and not with_cuda:
        raise UserError("--device gpu: this MXNet was built without CUDA: use --device cpu")
    if device == "gpu" and not gpus:
        raise UserError("--device gpu: no GPU is visible: see nvidia-smi and CUDA_VISIBLE_DEVICES, or use --device cpu")
    if not gpus:
        return mx.cpu()
    gpu = gpus[local_rank % len(gpus)]
    refusal = unsupported(gpu)
    if refusal:
        raise UserError(f"--device {device}: {refusal.reason}; {refusal.remedy}")
    return mx.gpu(gpu.index)
