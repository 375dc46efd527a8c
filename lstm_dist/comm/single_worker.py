"""A world of one worker, which needs neither Horovod nor MPI: every collective returns this worker's own values.

Neither library is loaded, so nothing that they read can stop a single worker: variables of a launcher that has ended,
the host name, network interfaces.
"""

import os
from typing import TYPE_CHECKING, List, NoReturn, Sequence

import numpy as np

from lstm_dist.comm.world import World
from lstm_dist.cuda import arrays

if TYPE_CHECKING:
    from mxnet.nd import NDArray


class SingleWorker(World):
    """The world of a job of one worker."""

    local_rank = 0
    is_one_host = True
    has_nccl = False
    controller = "none"

    def __init__(self) -> None:
        super().__init__(0, 1)

    def average_(self, array: "NDArray", name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:  # noqa: ARG002
        """Multiply `array` by `scale`; nothing is sent, so nothing is rounded to `wire_dtype`."""
        if scale != 1.0:
            arrays.scale_(array, scale)

    def broadcast_(self, array: "NDArray", name: str) -> None:  # noqa: ARG002
        """Wait for `array`."""
        array.wait_to_read()

    def use_host_memory(self) -> None:
        """Do nothing, because nothing is sent."""

    def sum(self, values: Sequence[float], name: str) -> np.ndarray:  # noqa: ARG002
        """Return the values in float64."""
        return np.array(values, dtype=np.float64)

    def gather_rows(self, array: "NDArray", name: str) -> np.ndarray:  # noqa: ARG002
        """Return the rows of `array`."""
        rows: np.ndarray = array.asnumpy()
        return rows

    def allgather_bytes(self, data: bytes, name: str) -> List[bytes]:  # noqa: ARG002
        """Return the bytes of this worker."""
        return [data]

    def leave(self) -> None:
        """Wait for pending operations."""
        from mxnet import nd

        nd.waitall()

    def abort(self, status: int) -> NoReturn:
        """End this process."""
        os._exit(status)
