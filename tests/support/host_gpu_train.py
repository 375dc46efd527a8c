"""jobs/train.py with the model for GPUs, its kernels compiled for the host; MXNet's second CPU device is the GPU."""

import os
import sys
from pathlib import Path

from lstm_dist.cluster.bootstrap import prepare_process
from lstm_dist.cluster.startup import Startup
from lstm_dist.errors import one_line_errors

sys.argv[0] = str(Path(__file__).parents[2] / "jobs" / "train.py")
with one_line_errors():  # as in jobs/train.py, where MXNet is loaded last
    startup = Startup.begin(os.environ)
    affinity = prepare_process()
    import mxnet as mx
    import pytest

    from lstm_dist.cluster import devices
    from lstm_dist.comm.horovod_group import HorovodWorld
    from lstm_dist.cuda import arrays
    from lstm_dist.cuda.source import read_source
    from lstm_dist.model import create
    from tests.support.cuda_device import DEVICE
    from tests.support.host_kernels import HostModule
    from tests.support.recorded_operators import RecordedOperators

    GPU = devices.Gpu(index=0, name="host", capability=(9, 0), bus="0", processors=8, cuda=11080)
    devices.choose = lambda device, local_rank: DEVICE  # noqa: ARG005
    devices.gpu_of = lambda ctx: GPU if ctx == DEVICE else None  # type: ignore[assignment]
    create.RtcModule = HostModule  # type: ignore[assignment,misc]
    on_arrays = HostModule(read_source(["arrays"]), DEVICE)
    arrays.kernels_for = lambda ctx: on_arrays if ctx == DEVICE else None  # type: ignore[assignment]
    HorovodWorld._is_here = staticmethod(lambda array: array.context == mx.cpu())  # type: ignore[method-assign]

    from lstm_dist.programs.train import main

    with pytest.MonkeyPatch.context() as patch:
        recorded = RecordedOperators(DEVICE, patch)
        main(startup, affinity)
        others = recorded.names - {"dot", "_copyto"}
        if others:
            raise RuntimeError(f"not only products and copies on the device: {others}")
