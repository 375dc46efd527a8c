"""How fast this processor multiplies matrices, with each of the two libraries that MXNet uses."""

import os
import time
from types import ModuleType
from typing import Any, Callable

from lstm_dist.cluster.openblas import VARIABLE, fastest_kernel, kernel_in_use
from lstm_dist.cluster.processor import this_processor
from lstm_dist.diagnosis.report import CheckReport

_SIZE = 512  # rows and columns
_RUNS = 8


def check_speed(report: CheckReport, mx: ModuleType) -> None:
    """Report the processor, the kernel of OpenBLAS and the speed of both libraries; takes about 0.1 s.

    A kernel that the user has named and MXNet's OpenBLAS does not have is a warning.
    """
    matrix = mx.nd.random.normal(shape=(_SIZE, _SIZE), ctx=mx.cpu())
    by_dot = gigaflops(mx, lambda: mx.nd.dot(matrix, matrix))
    by_layer = gigaflops(mx, lambda: mx.nd.FullyConnected(matrix, matrix, num_hidden=_SIZE, no_bias=True))
    processor, kernel, named = this_processor(), kernel_in_use(), os.environ.get(VARIABLE, "")
    blas = f"OpenBLAS (kernel {kernel})" if kernel else "BLAS"
    layers = "oneDNN" if mx.runtime.Features().is_enabled("MKLDNN") else "layers"
    text = f"{processor.name}, {blas} {by_dot:.0f} GFLOP/s, {layers} {by_layer:.0f} GFLOP/s"
    if kernel and named and named.lower() != kernel.lower():
        remedy = f"unset it, or name {fastest_kernel(processor) or 'a kernel that it has'}"
        report.warn("processor", f"{text}; {VARIABLE}={named} is not a kernel of MXNet's OpenBLAS", remedy)
    else:
        report.ok("processor", text)


def gigaflops(mx: ModuleType, multiply: Callable[[], Any]) -> float:
    """Return the speed of the fastest of several products of (_SIZE, _SIZE) matrices, in 1e9 operations a second."""
    seconds = []
    for _ in range(_RUNS):
        started = time.perf_counter()
        multiply()
        mx.nd.waitall()
        seconds.append(time.perf_counter() - started)
    return float(2 * _SIZE**3 / min(seconds) / 1e9)
