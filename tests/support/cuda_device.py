"""Where the tests run CUDA kernels: on a GPU if MXNet finds one, else on the host (host_kernels.py)."""

from typing import Tuple, Union

import mxnet as mx

from lstm_dist.cluster.devices import visible_gpus
from lstm_dist.cuda.module import Module, RtcModule
from lstm_dist.cuda.source import Source
from tests.support.host_kernels import HostModule

HAS_GPU = mx.runtime.Features().is_enabled("CUDA") and bool(visible_gpus())
# MXNet's second CPU device stands in for a GPU: what is on it is not where the host's arrays are.
DEVICE = mx.gpu(0) if HAS_GPU else mx.cpu(1)
# Orders of threads and blocks in which a result is computed again; a GPU has its own.
ORDERS: Tuple[Union[str, int], ...] = () if HAS_GPU else ("reversed", 1, 2)


def compile_kernels(source: Source, order: Union[str, int] = "forward") -> Module:
    """Return the kernels; `order` is that of threads and blocks on the host (host_kernels.py)."""
    return RtcModule(source, DEVICE) if HAS_GPU else HostModule(source, DEVICE, order)
