"""How many blocks and threads each kernel of the LSTM is launched with.

The numbers are those of kernels/*.cu. Numbers of elements fit a 32-bit integer, as they do in arrays of MXNet.
"""

from typing import NamedTuple, Optional, Tuple

REDUCING = 256  # threads of a block that reduces (output.cu)
NORM_BLOCKS = 256  # blocks that sum squares: enough for any GPU, and few enough for one block to add
COUNTER_PITCH = 32  # ints between two counters of a barrier, a cache line

_ELEMENTWISE = 256
_COLUMNS = 32  # of a block of column_sums, which has as many threads for each
_UNITS, _PERSISTENT_THREADS = 8, 256  # hidden units of a block, and its threads (persistent.cu)
_LARGEST_PERSISTENT = 1024  # hidden units for which a thread's part of W_h fits its registers


class LaunchSize(NamedTuple):
    """Blocks in x and y, and threads of a block."""

    blocks: Tuple[int, int]
    threads: int


def each(n: int) -> LaunchSize:
    """Return the size for one thread for each of n elements."""
    return LaunchSize((_up(n, _ELEMENTWISE), 1), _ELEMENTWISE)


def reduced(blocks: int) -> LaunchSize:
    """Return the size for blocks that reduce, each to one number or row."""
    return LaunchSize((blocks, 1), REDUCING)


def columns(n: int) -> LaunchSize:
    """Return the size for the sums of n columns."""
    return LaunchSize((_up(n, _COLUMNS), 1), _COLUMNS * _COLUMNS)


def rows_by_columns(rows: int, n: int) -> LaunchSize:
    """Return the size for one thread for each element of a matrix of n columns, a row in blockIdx.x."""
    return LaunchSize((rows, _up(n, _ELEMENTWISE)), _ELEMENTWISE)


def persistent(hidden_size: int, streams: int, processors: int) -> Optional[LaunchSize]:
    """Return the size of the persistent kernels, or None if they cannot compute a layer of this size on this GPU.

    Blocks wait for each other, so all must be resident at once. There is at most one for each multiprocessor; each
    fits one of any GPU, as it has 256 threads, at most 255 registers a thread and at most 48 KB of shared memory.

    Args:
        hidden_size: H.
        streams: B.
        processors: number of multiprocessors of the GPU.
    """
    if hidden_size % 32 or hidden_size > _LARGEST_PERSISTENT:
        return None
    blocks = hidden_size // _UNITS
    most = min(processors // blocks, streams)
    if most == 0:
        return None
    groups = _up(streams, _up(streams, most))  # without those that would have no streams
    return LaunchSize((blocks, groups), _PERSISTENT_THREADS)


def largest_persistent(processors: int) -> int:
    """Return the largest hidden size that the persistent kernels can compute on a GPU."""
    return min(_LARGEST_PERSISTENT, processors * _UNITS // 32 * 32)


def _up(n: int, divisor: int) -> int:
    return -(-n // divisor)
