"""One training step on every worker: gradients of its own streams, averaging, clipping, SGD update.

The workers agree in it on stops, checkpoints and what else is due: their requests are averaged with the gradients.
"""

from typing import NamedTuple, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.comm.world import World
from lstm_dist.data.batching import Window
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LanguageModel, LSTMState
from lstm_dist.train.interval import Intervals
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.step_timer import NOT_PROFILED, StepTimer


class Schedule(NamedTuple):
    """The parameters of the training loop.

    Attributes:
        epochs: passes over the text.
        learning_rate: the SGD learning rate schedule.
        max_norm: theta of the clipping.
        gradient_scale: N * B_ref / B; makes the scale of the gradients, sums over a worker's streams that are averaged
            over workers, independent of N and B.
        wire_dtype: communication data type of the gradients, "float32" or "float16".
        resets_every_window: whether state is zeroed before every window, not only at the start of an epoch.
        chars_per_step: B * T of the whole job.
        every: how often the run reports, evaluates and writes a checkpoint; what is due by a clock is requested.
        until_perplexity: training ends with the first epoch at or below this perplexity; 0 means never.
        time_every: every time_every-th step is profiled; 0 means none.
    """

    epochs: int
    learning_rate: LearningRate
    max_norm: float
    gradient_scale: float
    wire_dtype: str
    resets_every_window: bool
    chars_per_step: int
    every: Intervals = Intervals()
    until_perplexity: float = 0.0
    time_every: int = 0


class NotFiniteError(ArithmeticError):
    """A worker's loss or the averaged gradient is not finite; raised on every rank after the same step."""

    def __init__(self, loss: float, grad_norm: float) -> None:
        super().__init__(f"loss {loss:g}, gradient norm {grad_norm:g}")


class StepResult(NamedTuple):
    """Results of a step on the device: (2 + FLAGS,), the loss of this worker, the gradient norm, the control flags."""

    numbers: mx.nd.NDArray

    def read(self) -> Tuple[float, float, ControlFlags]:
        """Wait for the step; return the loss (nats, summed over this worker's characters), norm and agreed flags.

        A flag is set on every worker if any worker has requested the action that it stands for.

        Raises:
            NotFiniteError: if the norm or a flag is not finite.
        """
        loss, norm, *flags = self.numbers.asnumpy().astype(np.float64)
        if not np.isfinite([norm, *flags]).all():
            raise NotFiniteError(loss, norm)
        return loss, norm, ControlFlags(*(flag > 0 for flag in flags))


def train_step(
    model: LanguageModel,
    window: Window,
    state: LSTMState,
    world: World,
    schedule: Schedule,
    requests: ControlFlags = NO_REQUEST,
    timer: StepTimer = NOT_PROFILED,
    step: int = 0,
) -> Tuple[LSTMState, StepResult]:
    """Run one step on every worker: loss and gradients of its own streams, averaging, clipping, update.

    Clipping follows averaging, because clipping each worker's gradient would be a different algorithm for every N.
    The learning rate is that of `step`, counted from 0.
    """
    loss, state = model.loss_and_gradients(window.inputs, window.targets, state, requests, window.characters)
    gradients = model.exchanged
    timer.lap(gradients)
    timer.barrier(world, gradients.size * np.dtype(schedule.wire_dtype).itemsize)
    world.average_(gradients, f"gradients_{gradients.size}", schedule.gradient_scale, schedule.wire_dtype)
    timer.lap(gradients)
    grad_norm, factor = model.clip_by_global_norm(schedule.max_norm)
    model.sgd_update_(schedule.learning_rate.at(step), factor)
    timer.lap(model.weights)
    return state, StepResult(model.step_numbers(loss, grad_norm))
