"""The training loop.

Each worker takes its shard of the batch streams, runs the hand-written LSTM forward and backward on it, Horovod
averages the gradients, every worker clips the average by its global norm and takes the same SGD step, and rank 0 writes
perplexity and samples.
"""

import time
from typing import Callable, Iterable, NamedTuple, Optional, Sequence, Tuple, Union

import mxnet as mx
import numpy as np

from lstm_dist.batches import ConsecutiveBatches, RandomBatches, Window
from lstm_dist.evaluation import bits_per_char, perplexity
from lstm_dist.exchange import SettledError, World
from lstm_dist.interrupt import Interrupt
from lstm_dist.model import CharLSTM, LSTMState
from lstm_dist.optim import clip_by_global_norm, sgd_update_
from lstm_dist.runlog import EpochMetrics, RunLog

Batches = Union[ConsecutiveBatches, RandomBatches]


class Schedule(NamedTuple):
    """The numbers of the loop.

    Attributes:
        epochs: passes over the text.
        learning_rate: of SGD.
        max_norm: theta of the clipping.
        gradient_scale: N * B_ref / B, which turns the workers' average of sums over their own streams into the one
            scale that gradients have at every N and B.
        wire_dtype: in which gradients travel, "float32" or "float16".
        resets_every_window: whether state is zeroed before every window, and not only at the start of an epoch.
        chars_per_step: B * T of the whole job.
        log_every: epochs between two human lines.
    """

    epochs: int
    learning_rate: float
    max_norm: float
    gradient_scale: float
    wire_dtype: str
    resets_every_window: bool
    chars_per_step: int
    log_every: int


class StepStats(NamedTuple):
    """What a step leaves on the device; both (1,)."""

    loss: mx.nd.NDArray
    grad_norm: mx.nd.NDArray

    def read(self) -> np.ndarray:
        """Both as float64, (2,); waits for the step."""
        return np.array([self.loss.asscalar(), self.grad_norm.asscalar()], np.float64)


def train_step(
    model: CharLSTM, window: Window, state: LSTMState, world: World, schedule: Schedule
) -> Tuple[LSTMState, StepStats]:
    """One step of every worker: loss and gradients of its own streams, the average, the clip, the update.

    The clip comes after the average: clipping each worker's own gradient would be another algorithm for every N.
    """
    loss, state = model.loss_and_gradients(window.inputs, window.targets, state)
    world.average_(model.gradients.flat, "gradients", schedule.gradient_scale, schedule.wire_dtype)
    grad_norm, factor = clip_by_global_norm(model.gradients.flat, schedule.max_norm)
    sgd_update_(model.parameters.flat, model.gradients.flat, schedule.learning_rate, factor)
    return state, StepStats(loss, grad_norm)


def train(
    model: CharLSTM,
    batches: Batches,
    world: World,
    schedule: Schedule,
    log: RunLog,
    write_samples: Callable[[int], None],
) -> None:
    """All epochs, from weights that are made equal first.

    Raises:
        SettledError: on every rank, when the loss of an epoch is not finite.
    """
    world.broadcast_(model.parameters.flat, "initial_parameters")
    started = time.monotonic()
    with Interrupt() as interrupt:
        for epoch in range(1, schedule.epochs + 1):
            epoch_started = time.monotonic()
            loss, grad_norm = train_epoch(model, interrupt.between(batches.epoch(epoch)), world, schedule, log)
            refuse_divergence(model, world, epoch, (loss, grad_norm))
            chars = batches.steps_per_epoch * schedule.chars_per_step
            now = time.monotonic()
            metrics = EpochMetrics(
                epoch=epoch,
                step=epoch * batches.steps_per_epoch,
                loss=loss,
                perplexity=perplexity(loss),
                bits_per_char=bits_per_char(loss),
                grad_norm=grad_norm,
                chars_per_sec=chars / (now - epoch_started),
                seconds=now - started,
            )
            show = epoch % schedule.log_every == 0 or epoch == schedule.epochs
            log.epoch(metrics, show)
            if show:
                write_samples(epoch)


def train_epoch(
    model: CharLSTM, windows: Iterable[Window], world: World, schedule: Schedule, log: RunLog
) -> Tuple[float, float]:
    """One pass over the windows; the mean loss of all workers' characters (nats) and the mean gradient norm."""
    totals, steps = np.zeros(2), 0
    last: Optional[StepStats] = None
    for window in windows:
        if last is None or schedule.resets_every_window:
            state = model.zero_state(len(window.inputs))
        state, stats = train_step(model, window, state, world, schedule)
        if last is not None:
            totals += last.read()  # the engine has this step to go on with meanwhile
        last, steps = stats, steps + 1
        log.advance(schedule.chars_per_step)
    assert last is not None  # noqa: S101 - `batches` refuses a text without a whole window
    loss, norm = totals + last.read()
    # Sums travel and are divided once: the mean of the workers' means is wrong where their shards differ in size.
    (total_loss,) = world.sum([loss], "epoch_loss")
    return total_loss / (steps * schedule.chars_per_step), norm / steps


def refuse_divergence(model: CharLSTM, world: World, epoch: int, metrics: Sequence[float]) -> None:
    """Stop on every rank, at the same epoch, when a number is not finite on any.

    The parameters are asked too: a softmax over NaN may well give zeros and with them a finite loss.
    """
    parameter_norm, _ = clip_by_global_norm(model.parameters.flat, 1.0)
    numbers = world.sum([*metrics, parameter_norm.asscalar()], "finite") / world.size
    if not np.isfinite(numbers).all():
        loss, grad_norm, norm = numbers
        raise SettledError(
            f"epoch {epoch}: training has diverged (loss {loss:g}, gradient norm {grad_norm:g}, parameter norm "
            f"{norm:g}): lower --learning-rate or --max-norm"
        )
