"""GPUs, and a stub of the driver library that reports them."""

from typing import Sequence

from lstm_dist.cluster.devices import Gpu

DRIVER_CUDA = 12040  # what the driver of these GPUs supports, CUDA 12.4

A100 = Gpu(0, "NVIDIA A100-SXM4-40GB", (8, 0), "0000:10:00.0", 108, DRIVER_CUDA)

RTX3090 = Gpu(1, "RTX 3090", (8, 6), "0000:11:00.0", 82, DRIVER_CUDA)

GTX980 = Gpu(2, "GTX 980", (5, 2), "0000:12:00.0", 16, DRIVER_CUDA)

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", (9, 0), "0000:10:00.0", 132, DRIVER_CUDA)

GTX680 = Gpu(0, "GeForce GTX 680", (3, 0), "0000:10:00.0", 8, DRIVER_CUDA)

# Its handles differ from its indices, so that a caller that passes an index instead of a handle gets an error.
_DRIVER = r"""
#include <stdio.h>
#include <string.h>
static const struct { const char *name; int major, minor, processors; } gpus[] = { %(gpus)s {"", 0, 0, 0} };
static const int count = sizeof gpus / sizeof *gpus - 1;
int cuInit(unsigned flags) { return flags ? 1 : %(init)d; }
int cuDeviceGetCount(int *n) { *n = count; return 0; }
int cuDriverGetVersion(int *version) { *version = %(cuda)d; return 0; }
int cuDeviceGet(int *handle, int index) { *handle = 100 + index; return 0; }
int cuDeviceGetName(char *name, int size, int handle) {
    if (handle < 100 || handle >= 100 + count) return 101;
    strncpy(name, gpus[handle - 100].name, size);
    return 0;
}
int cuDeviceGetPCIBusId(char *bus, int size, int handle) {
    if (handle < 100 || handle >= 100 + count) return 101;
    snprintf(bus, size, "0000:%%02d:00.0", 10 + handle - 100);
    return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int handle) {
    if (handle < 100 || handle >= 100 + count) return 101;
    switch (attribute) {
        case 16: *value = gpus[handle - 100].processors; return 0;
        case 75: *value = gpus[handle - 100].major; return 0;
        case 76: *value = gpus[handle - 100].minor; return 0;
        default: return 1;
    }
}
"""


def driver_source(gpus: Sequence[Gpu], init: int = 0, cuda: int = DRIVER_CUDA) -> str:
    """Return the C source of a libcuda.so.1 that reports these GPUs and this CUDA; cuInit returns `init`."""
    table = "".join('{{"{}", {}, {}, {}}},'.format(gpu.name, *gpu.capability, gpu.processors) for gpu in gpus)
    return _DRIVER % {"gpus": table, "init": init, "cuda": cuda}
