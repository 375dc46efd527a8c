"""The device of a worker: the GPUs that the driver reports, and the choice of one by local rank."""

import contextlib
import ctypes
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional, Tuple

from lstm_dist.cluster.cuda_libs import DRIVER
from lstm_dist.cluster.launch_env import detect
from lstm_dist.errors import UserError

if TYPE_CHECKING:
    import mxnet as mx

_CAPABILITY_MAJOR, _CAPABILITY_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_{MAJOR,MINOR}

# Compute capabilities of the machine code in MXNet 1.9.1's CUDA wheels. It also runs on later minor versions of the
# same major version; the wheels hold no PTX from which the driver could compile code for others.
_MACHINE_CODE = ((5, 0), (6, 0), (7, 0), (8, 0), (8, 6))


@dataclass(frozen=True)
class Gpu:
    """One GPU, numbered as in MXNet: among those that CUDA_VISIBLE_DEVICES allows."""

    index: int
    name: str
    capability: Tuple[int, int]
    bus: str = ""  # PCI bus id, the same for every process of the host


def visible_gpus(driver: str = DRIVER) -> List[Gpu]:
    """Return the GPUs that the driver reports to this process; none if the driver is missing or broken."""
    try:
        cuda = ctypes.CDLL(driver)
    except OSError:
        return []
    count = ctypes.c_int()
    if cuda.cuInit(0) != 0 or cuda.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return []
    return [_describe(cuda, index) for index in range(count.value)]


def _describe(cuda: ctypes.CDLL, index: int) -> Gpu:
    device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
    major, minor, bus = ctypes.c_int(), ctypes.c_int(), ctypes.create_string_buffer(32)
    cuda.cuDeviceGet(ctypes.byref(device), index)
    cuda.cuDeviceGetName(name, len(name), device)
    cuda.cuDeviceGetAttribute(ctypes.byref(major), _CAPABILITY_MAJOR, device)
    cuda.cuDeviceGetAttribute(ctypes.byref(minor), _CAPABILITY_MINOR, device)
    cuda.cuDeviceGetPCIBusId(bus, len(bus), device)
    capability = (major.value, minor.value)
    return Gpu(index, name.value.decode(errors="replace"), capability, bus.value.decode(errors="replace"))


def unsupported(gpu: Gpu) -> Optional[str]:
    """Return why MXNet 1.9.1 cannot compute on this GPU, with its name; None if it can."""
    major, minor = gpu.capability
    if any(major == first and minor >= second for first, second in _MACHINE_CODE):
        return None
    listed = ", ".join(f"{first}.{second}" for first, second in _MACHINE_CODE)
    return (
        f"GPU {gpu.index}, {gpu.name}, has compute capability {major}.{minor}: MXNet 1.9.1 has machine code "
        f"for {listed} and later minor versions of these, and for no other"
    )


def identity(ctx: "mx.Context") -> str:
    """Return the name and PCI bus id of a context's GPU; empty for a CPU."""
    if ctx.device_type != "gpu":
        return ""
    gpu = visible_gpus()[ctx.device_id]
    return f"{gpu.name} at {gpu.bus}"


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
        UserError: if "gpu" finds no GPU, or MXNet has no code for this worker's GPU.
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
    reason = unsupported(gpu)
    if reason:
        raise UserError(f"--device {device}: {reason}; use --device cpu, or another GPU through CUDA_VISIBLE_DEVICES")
    return mx.gpu(gpu.index)
