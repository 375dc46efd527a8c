"""The model for GPUs, on the device of tests/support/cuda_device.py."""

from typing import Union

from lstm_dist.cuda.source import read_source
from lstm_dist.model.cuda_lstm import CudaLSTM
from lstm_dist.model.cuda_recurrence import LoopRecurrence, PersistentRecurrence, Recurrence, files_of
from tests.support.cuda_device import compile_kernels

RECURRENCES = ("loop", "persistent")


def cuda_model(
    vocab_size: int,
    hidden_size: int,
    layers: int = 1,
    recurrence: str = "loop",
    processors: int = 8,
    order: Union[str, int] = "forward",
) -> CudaLSTM:
    """Return a model of these sizes; `order` is that of threads and blocks (host_kernels.py)."""
    is_persistent = recurrence == "persistent"
    module = compile_kernels(read_source(files_of(is_persistent), HIDDEN=hidden_size), order)
    steps: Recurrence = LoopRecurrence(module, hidden_size)
    if is_persistent:
        steps = PersistentRecurrence(module, hidden_size, processors)
    return CudaLSTM(vocab_size, hidden_size, layers, module, steps, "a GPU")
