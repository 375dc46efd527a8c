"""Matrix products, each with the operator of MXNet that is fastest on this processor for operands stored as they are.

MXNet multiplies with two libraries: `dot` with OpenBLAS, whose fastest kernel is for AVX2, and FullyConnected and
Convolution with oneDNN, which has kernels for AVX-512 too. With AVX-512, oneDNN is up to three times as fast. With AVX2
or less it is as fast as OpenBLAS, except that it needs a transposed copy of both operands for a^T b.

Which is fastest follows from the processor alone, for all sizes that were measured (1 to 512 streams, hidden size 256
and 512, vocabulary 1595 and 10,000), so nothing is measured when a run starts, and a run has the same bits each time.
"""

from types import ModuleType
from typing import Any, Callable, Optional

from lstm_dist.cluster.openblas import rounding_kernel
from lstm_dist.cluster.processor import Processor, this_processor

Array = Any  # mx.nd.NDArray or mx.sym.Symbol, depending on F
TransposedTimes = Callable[[ModuleType, Array, Array, int, int], Array]

_AVX512 = frozenset({"avx512f", "avx512bw", "avx512dq", "avx512vl"})  # what oneDNN needs for its kernels
# Rows of `a` for which FullyConnected with `a` as its weight is fastest: in `times`, and in `plus_times`, where the
# result to transpose is larger.
_SWAPPED, _SWAPPED_WITH_SUM = range(16, 128), range(16, 64)


def times(F: ModuleType, a: Array, b_t: Array, m: int, n: int) -> Array:
    """Return a b, (m, n), for a, (m, k), and b stored transposed, (n, k).

    FullyConnected multiplies by its transposed weight. With swapped operands it is up to twice as fast for a few rows.
    """
    if m in _SWAPPED:
        return F.transpose(F.FullyConnected(b_t, a, num_hidden=m, no_bias=True))
    return F.FullyConnected(a, b_t, num_hidden=n, no_bias=True)


def plus_times(F: ModuleType, c: Array, bias: Array, a: Array, b_t: Array, m: int, n: int) -> Array:
    """Return c + bias + a b for c, (m, n), bias, (n,), and the factors of `times`."""
    if m in _SWAPPED_WITH_SUM:
        # MXNet computes the rows of the bias once for all products with it.
        return F.add_n(times(F, a, b_t, m, n), c, F.broadcast_to(F.reshape(bias, shape=(1, n)), shape=(m, n)))
    return F.FullyConnected(a, b_t, bias, num_hidden=n) + c


def transposed_times_by_dot(F: ModuleType, a: Array, b: Array, m: int, n: int) -> Array:  # noqa: ARG001 - as below
    """Return a^T b, (m, n), for a, (k, m), and b, (k, n)."""
    return F.dot(a, b, transpose_a=True)


def transposed_times_by_convolution(F: ModuleType, a: Array, b: Array, m: int, n: int) -> Array:
    """Return the same as `transposed_times_by_dot`."""
    return F.reshape(times_by_convolution(F, F.transpose(a), b, m), shape=(m, n))


def times_by_convolution(F: ModuleType, a: Array, b: Array, m: int) -> Array:
    """Return a b, as (1, m, n), for a, (m, k), and b, (k, n).

    A convolution with a kernel of one element multiplies its weight, (m, k), by an image of k channels and n pixels. It
    is MXNet's only product by oneDNN in which b is stored as it is. Where m is a multiple of 16, oneDNN rearranges b
    first, and the form loses its advantage; a gradient with its bias has H + 1 rows.
    """
    weight, image = F.expand_dims(a, axis=2), F.expand_dims(b, axis=0)
    return F.Convolution(image, weight, kernel=(1,), num_filter=m, no_bias=True)


def describe_products() -> str:
    """Return what the rounding of products depends on besides their operands."""
    uses_onednn = fastest_transposed_times() is transposed_times_by_convolution
    return f"{rounding_kernel() or 'unknown'} {'with' if uses_onednn else 'without'} AVX-512"


def fastest_transposed_times(processor: Optional[Processor] = None) -> TransposedTimes:
    """Return the fastest form of a^T b, for matrices with hundreds of rows and columns."""
    # Imported here, because sizes of a model are also needed where MXNet cannot be loaded (parameters.py).
    from mxnet.runtime import Features

    has_avx512 = (processor or this_processor()).instructions.issuperset(_AVX512)
    by_onednn = has_avx512 and Features().is_enabled("MKLDNN")
    return transposed_times_by_convolution if by_onednn else transposed_times_by_dot
