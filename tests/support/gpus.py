"""GPUs, and a stub of the driver library that reports them."""

from lstm_dist.cluster.devices import Gpu

A100 = Gpu(0, "NVIDIA A100-SXM4-40GB", (8, 0), "0000:10:00.0")

RTX3090, GTX980 = Gpu(1, "RTX 3090", (8, 6), "0000:11:00.0"), Gpu(2, "GTX 980", (5, 2), "0000:12:00.0")

H100 = Gpu(0, "NVIDIA H100 80GB HBM3", (9, 0), "0000:10:00.0")

GTX680 = Gpu(0, "GeForce GTX 680", (3, 0), "0000:10:00.0")

# Its handles differ from its indices, so that a caller that passes an index instead of a handle gets an error.
DRIVER = r"""
#include <stdio.h>
#include <string.h>
static const struct { const char *name; int major, minor; } gpus[] = { %(gpus)s {"", 0, 0} };
static const int count = sizeof gpus / sizeof *gpus - 1;
int cuInit(unsigned flags) { return flags ? 1 : %(init)d; }
int cuDeviceGetCount(int *n) { *n = count; return 0; }
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
    *value = attribute == 75 ? gpus[handle - 100].major : attribute == 76 ? gpus[handle - 100].minor : -1;
    return 0;
}
"""
