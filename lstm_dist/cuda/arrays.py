"""Operations on whole arrays of float32 that the exchange of gradients needs, in place or into a new array.

They use kernels/arrays.cu on a GPU, where MXNet's operators may have no machine code, and MXNet's operators on a CPU.
Both give the same bits. All of them are asynchronous, and MXNet's engine orders them with others by their arrays.
"""

from functools import lru_cache
from typing import Optional

import mxnet as mx

from lstm_dist.cuda.launch_sizes import each
from lstm_dist.cuda.module import Module, RtcModule
from lstm_dist.cuda.source import read_source


def scale_(array: mx.nd.NDArray, factor: float) -> None:
    """Multiply the array by a factor, in place."""
    kernels = kernels_for(array.context)
    if kernels:
        kernels.launch("scale", each(array.size), array, factor, array.size)
    else:
        array *= factor


def to_half(array: mx.nd.NDArray, factor: float) -> mx.nd.NDArray:
    """Return factor times the array, rounded to float16, on the same device; the array may be overwritten."""
    kernels = kernels_for(array.context)
    if kernels:
        half = mx.nd.empty(array.shape, array.context, "float16")
        kernels.launch("to_half", each(array.size), array, factor, half, array.size)
        return half
    array *= factor
    return array.astype("float16")


def from_half(half: mx.nd.NDArray, array: mx.nd.NDArray) -> None:
    """Write the values of a float16 array to an array of the same shape on the same device."""
    kernels = kernels_for(array.context)
    if kernels:
        kernels.launch("from_half", each(array.size), half, array, array.size)
    else:
        half.copyto(array)


def kernels_for(ctx: mx.Context) -> Optional[Module]:
    """Return the kernels for a GPU, compiled when they are first needed; None for a CPU."""
    return _compiled(ctx) if ctx.device_type == "gpu" else None


@lru_cache(maxsize=None)
def _compiled(ctx: mx.Context) -> Module:
    return RtcModule(read_source(["arrays"]), ctx)
