"""lstm_dist.cuda.arrays on the device of tests/support/cuda_device.py."""

import pytest

from lstm_dist.cuda import arrays
from lstm_dist.cuda.source import read_source
from tests.support.cuda_device import DEVICE, compile_kernels


def use_kernels(patch: pytest.MonkeyPatch) -> None:
    """Let kernels compute on arrays of the device, until the patch ends."""
    kernels = compile_kernels(read_source(["arrays"]))
    patch.setattr(arrays, "kernels_for", lambda ctx: kernels if ctx == DEVICE else None)
