"""lstm_dist.cuda.arrays with its kernels compiled for the host; MXNet's second CPU device stands in for a GPU."""

import mxnet as mx
import pytest

from lstm_dist.cuda import arrays
from lstm_dist.cuda.source import read_source
from tests.support.host_kernels import HostModule

DEVICE = mx.cpu(1)


def use_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let kernels compute on arrays of the device, until the patch ends."""
    kernels = HostModule(read_source(["arrays"]), DEVICE)
    patch.setattr(arrays, "kernels_for", lambda ctx: kernels if ctx == DEVICE else None)
