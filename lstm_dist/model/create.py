"""Creation of the model for a device: a static graph on a CPU, our own kernels on a GPU."""

import mxnet as mx

from lstm_dist.cluster import devices
from lstm_dist.cluster.devices import Gpu
from lstm_dist.cuda import arrays, launch_sizes
from lstm_dist.cuda.module import Module, RtcModule
from lstm_dist.cuda.source import read_source
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.cuda_lstm import CudaLSTM
from lstm_dist.model.cuda_recurrence import LoopRecurrence, PersistentRecurrence, Recurrence, files_of
from lstm_dist.model.language_model import LanguageModel


def create_model(
    vocab_size: int, hidden_size: int, ctx: mx.Context, layers: int = 1, recurrence: str = "auto"
) -> LanguageModel:
    """Return a model without values for a device.

    Args:
        vocab_size: V.
        hidden_size: H.
        ctx: the device.
        layers: number of layers.
        recurrence: how a GPU computes the steps, "loop", "persistent" or "auto", which is "loop" until the persistent
            kernels have been seen to compute the right numbers on a GPU.

    Raises:
        UserError: if the persistent kernels cannot compute this hidden size on the GPU.
    """
    gpu = devices.gpu_of(ctx)
    if gpu is None:
        return CharLSTM(vocab_size, hidden_size, ctx, layers)
    is_persistent = recurrence == "persistent"
    if is_persistent:
        _require_residence(hidden_size, gpu)
    module = RtcModule(read_source(files_of(is_persistent), HIDDEN=hidden_size), ctx)
    arrays.kernels_for(ctx)  # compiled here, so that a failure is not one of the first step
    steps = _recurrence(module, hidden_size, is_persistent, gpu)
    return CudaLSTM(vocab_size, hidden_size, layers, module, steps, gpu.name)


def _recurrence(module: Module, hidden_size: int, is_persistent: bool, gpu: Gpu) -> Recurrence:
    if is_persistent:
        return PersistentRecurrence(module, hidden_size, gpu.processors)
    return LoopRecurrence(module, hidden_size)


def _require_residence(hidden_size: int, gpu: Gpu) -> None:
    """Check that all blocks of the persistent kernels can be on the GPU at once, because they wait for each other."""
    if launch_sizes.persistent(hidden_size, 1, gpu.processors) is None:
        largest = launch_sizes.largest_persistent(gpu.processors)
        sizes = f"a multiple of 32 up to {largest}, or " if largest else ""
        raise UserError(
            f"--recurrence persistent: --hidden-size {hidden_size} does not fit GPU {gpu.index}, {gpu.name}, which has "
            f"{gpu.processors} multiprocessors: use {sizes}--recurrence loop",
            ExitStatus.BAD_CONFIG,
        )
