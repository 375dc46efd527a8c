"""The training loop.

Each worker runs the hand-written LSTM forward and backward on its shard of the batch streams. Horovod averages the
gradients, every worker clips the average by its global norm and takes the same SGD step, and rank 0 writes perplexity,
samples and checkpoints.
"""

import time
from typing import Iterator, List, NamedTuple, Optional, Tuple, Union

import mxnet as mx
import numpy as np

from lstm_dist.comm.horovod_group import World
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches, Window
from lstm_dist.model.char_lstm import CharLSTM, LSTMState
from lstm_dist.model.parameters import VOTES
from lstm_dist.run.run_log import EpochMetrics, RunLog
from lstm_dist.train.evaluator import Scorer
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.metrics import bits_per_char, perplexity
from lstm_dist.train.optim import clip_by_global_norm, sgd_update_
from lstm_dist.train.step_timer import RunningStopwatch, StepTimes, Stopwatch, collect

Batches = Union[ConsecutiveBatches, RandomBatches]


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
        log_every: epochs between two console lines.
        checkpoint_epochs: epochs between two checkpoints; 0 leaves checkpoints to the votes.
        until_perplexity: training ends with the first epoch at or below this perplexity; 0 means never.
        time_every: every time_every-th step is profiled; 0 means none.
        eval_every: epochs between two evaluations on the validation set.
    """

    epochs: int
    learning_rate: LearningRate
    max_norm: float
    gradient_scale: float
    wire_dtype: str
    resets_every_window: bool
    chars_per_step: int
    log_every: int
    checkpoint_epochs: int = 0
    until_perplexity: float = 0.0
    time_every: int = 0
    eval_every: int = 1


class Progress(NamedTuple):
    """The position of a run: everything needed to resume it, apart from weights and state.

    Attributes:
        step: updates so far.
        epoch: finished epochs.
        position: finished windows of the current epoch.
        loss: nats, summed over those windows and all workers.
        grad_norm: summed over those windows.
        seconds: of training.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0


class Votes(NamedTuple):
    """Actions after a step: those that a worker requests or, once agreed, those that any worker requested."""

    stop: bool = False
    checkpoint: bool = False


NOTHING = Votes()
BEGINNING = Progress()
UNWATCHED = Stopwatch()


class StepStats(NamedTuple):
    """Results of a step on the device: (2 + VOTES,), the loss of this worker, the gradient norm, and the votes."""

    numbers: mx.nd.NDArray

    def read(self) -> Tuple[float, float, Votes]:
        """Wait for the step; return the loss (nats, summed over this worker's characters), norm and agreed votes.

        Raises:
            NotFiniteError: if the norm or a vote is not finite.
        """
        loss, norm, *votes = self.numbers.asnumpy().astype(np.float64)
        if not np.isfinite([norm, *votes]).all():
            raise NotFiniteError(loss, norm)
        return loss, norm, Votes(*(vote > 0 for vote in votes))


class NotFiniteError(ArithmeticError):
    """A worker's loss or the averaged gradient is not finite; raised on every rank after the same step."""

    def __init__(self, loss: float, grad_norm: float) -> None:
        super().__init__(f"loss {loss:g}, gradient norm {grad_norm:g}")


class Callbacks:
    """Callbacks of the training loop; these do nothing."""

    def vote(self) -> Votes:
        """Return the actions that this worker requests; called before every step."""
        return NOTHING

    def beat(self, phase: str, step: int) -> None:
        """Report progress: `step` is finished, and `phase` comes next."""

    def write_samples(self, epoch: int) -> None:
        """Write samples; called at the end of an epoch that is logged to the console."""

    def validate(self, epoch: int, loss: float) -> None:
        """Handle the validation loss; called on every rank."""

    def commit(self, progress: Progress, state: LSTMState) -> None:
        """Write a checkpoint; called on every rank after the same step."""


class _Replay(Callbacks):
    """Callbacks for repeating steps: forwards beats, commits and stop votes only."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks
        self.beat = callbacks.beat  # type: ignore[method-assign]
        self.commit = callbacks.commit  # type: ignore[method-assign]

    def vote(self) -> Votes:
        return Votes(stop=self._callbacks.vote().stop)


def train_step(
    model: CharLSTM,
    window: Window,
    state: LSTMState,
    world: World,
    schedule: Schedule,
    wanted: Votes = NOTHING,
    watch: Stopwatch = UNWATCHED,
    step: int = 0,
) -> Tuple[LSTMState, StepStats]:
    """Run one step on every worker: loss and gradients of its own streams, averaging, clipping, update.

    Clipping follows averaging, because clipping each worker's gradient would be a different algorithm for every N.
    The learning rate is that of `step`, counted from 0.
    """
    loss, state = model.loss_and_gradients(window.inputs, window.targets, state)
    for number in [k for k in range(VOTES) if wanted[k]]:
        model.gradients.extra[number : number + 1] += 1
    watch.lap(model.gradients.whole)
    watch.gather(world)
    world.average_(model.gradients.whole, "gradients", schedule.gradient_scale, schedule.wire_dtype)
    watch.lap(model.gradients.whole)
    grad_norm, factor = clip_by_global_norm(model.gradients.flat, schedule.max_norm)
    sgd_update_(model.parameters.flat, model.gradients.flat, schedule.learning_rate.at(step), factor)
    watch.lap(model.parameters.flat)
    return state, StepStats(mx.nd.concat(loss, grad_norm, model.gradients.extra, dim=0))


class Trainer:
    """The loop over steps and epochs, from a given position of a run to its end.

    Attributes:
        progress: the current position; exact whenever a callback is called.
    """

    def __init__(
        self,
        model: CharLSTM,
        batches: Batches,
        world: World,
        schedule: Schedule,
        log: RunLog,
        callbacks: Callbacks,
        progress: Progress = BEGINNING,
        state: Optional[LSTMState] = None,
        held_out: Optional[Scorer] = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._world = world
        self._schedule = schedule
        self._log = log
        self._callbacks = callbacks
        self._held_out = held_out
        # Every worker sums its own losses, so the earlier sum over all workers is kept on the root only.
        self.progress = progress if world.is_root else progress._replace(loss=0.0)
        self._state = state if progress.position else None
        self._pending: Optional[StepStats] = None
        self._agreed = NOTHING
        self._is_over = progress.epoch >= schedule.epochs
        self._times: List[StepTimes] = []
        self._started = self._epoch_started = time.monotonic()
        self._epoch_step = progress.step

    def run(self, until_step: Optional[int] = None) -> bool:
        """Train to the last epoch, to `until_step`, or until a worker votes to stop; then commit a checkpoint.

        Returns:
            Whether training was stopped by a vote.

        Raises:
            NotFiniteError: on every rank; `progress` is then that of the previous step, but the weights are not.
        """
        self._world.broadcast_(self._model.parameters.flat, "initial_parameters")
        if self.progress.step == 0:
            self._commit()
        while not self._is_over and self.progress.step != until_step and not self._agreed.stop:
            self._leg(until_step)
        return self._agreed.stop

    def replay(self, progress: Progress, state: LSTMState, until_step: int) -> None:
        """Repeat training from an earlier position to `until_step` or a stop vote, and commit there without logging."""
        schedule, quiet = self._schedule._replace(checkpoint_epochs=0, time_every=0), _Replay(self._callbacks)
        again = Trainer(self._model, self._batches, self._world, schedule, RunLog(), quiet, progress, state)
        again.run(until_step)

    def _leg(self, until_step: Optional[int]) -> None:
        """Train to the end of the epoch, or until the workers agree on an action."""
        self._agreed = NOTHING
        for window, watch in self._windows():
            self._step(window, watch)
            if any(self._agreed) or self.progress.step + 1 == until_step:
                break
        self._account()
        ends = self.progress.position == self._batches.steps_per_epoch
        if ends:
            if self._agreed.stop and self._held_out is not None:
                self._commit()  # validation may outlast the grace period of the stop request
            self._finish_epoch()
        if any(self._agreed) or (ends and self._is_due(self.progress.epoch)) or self.progress.step == until_step:
            self._commit()

    def _windows(self) -> Iterator[Tuple[Window, Stopwatch]]:
        """Yield the remaining windows of the epoch, each with the stopwatch of its step."""
        windows, every = self._batches.epoch(self.progress.epoch + 1, self.progress.position), self._schedule.time_every
        while True:
            step = self.progress.step + (self._pending is not None) + 1
            is_timed = every > 0 and step % every == 0
            if is_timed:
                self._account()  # a profiled step must run alone
            if any(self._agreed):
                return
            watch = RunningStopwatch() if is_timed else UNWATCHED
            window = next(windows, None)
            if window is None:
                return
            watch.lap()
            yield window, watch
            if isinstance(watch, RunningStopwatch):
                self._times.append(watch.read(step))

    def _step(self, window: Window, watch: Stopwatch) -> None:
        """Start the next step, then wait for the previous one, which keeps the engine busy."""
        if self._state is None or self._schedule.resets_every_window:
            self._state = self._model.zero_state(len(window.inputs))
        wanted = self._callbacks.vote()
        step = self.progress.step + (self._pending is not None)
        self._state, stats = train_step(
            self._model, window, self._state, self._world, self._schedule, wanted, watch, step
        )
        self._account()
        self._pending = stats

    def _account(self) -> None:
        """Wait for the last started step, and add it and its agreed votes to the progress."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        loss, grad_norm, agreed = pending.read()
        self._agreed = Votes(*(a or b for a, b in zip(self._agreed, agreed)))
        now = self.progress
        self.progress = now._replace(
            step=now.step + 1,
            position=now.position + 1,
            loss=now.loss + loss,
            grad_norm=now.grad_norm + grad_norm,
        )
        self._callbacks.beat("step", self.progress.step)
        self._log.advance(self._schedule.chars_per_step)

    def _finish_epoch(self) -> None:
        done, steps = self.progress, self._batches.steps_per_epoch
        epoch, chars = done.epoch + 1, self._schedule.chars_per_step
        # Reduce sums and divide once: a mean of the workers' means would be wrong for shards of different sizes.
        loss = self._world.sum([done.loss], "epoch_loss")[0] / (steps * chars)
        now = time.monotonic()
        valid = self._validate(epoch)
        metrics = EpochMetrics(
            epoch=epoch,
            step=done.step,
            loss=loss,
            perplexity=perplexity(loss),
            bits_per_char=bits_per_char(loss),
            grad_norm=done.grad_norm / steps,
            chars_per_sec=(done.step - self._epoch_step) * chars / (now - self._epoch_started),
            seconds=done.seconds + now - self._started,
            valid_perplexity=None if valid is None else perplexity(valid),
        )
        self._is_over = epoch == self._schedule.epochs or metrics.perplexity <= self._schedule.until_perplexity
        show = epoch % self._schedule.log_every == 0 or self._is_over
        self._log.epoch(metrics, show)
        if self._schedule.time_every:
            self._log.times(epoch, collect(self._times, self._world))
            self._times = []
        if show:
            self._callbacks.beat("samples", done.step)
            self._callbacks.write_samples(epoch)
        self.progress = done._replace(epoch=epoch, position=0, loss=0.0, grad_norm=0.0)
        self._state, self._epoch_step, self._epoch_started = None, done.step, time.monotonic()

    def _validate(self, epoch: int) -> Optional[float]:
        """Return the validation loss; None without a validation set, or if no evaluation is due."""
        if self._held_out is None or epoch % self._schedule.eval_every != 0:
            return None
        step = self.progress.step
        self._callbacks.beat("samples", step)
        loss = self._held_out.score(self._model, lambda _: self._callbacks.beat("samples", step)).loss
        self._callbacks.validate(epoch, loss)
        return loss

    def _is_due(self, epoch: int) -> bool:
        every = self._schedule.checkpoint_epochs
        return self._is_over or (every > 0 and epoch % every == 0)

    def _commit(self) -> None:
        self._callbacks.beat("checkpoint", self.progress.step)
        (loss,) = self._world.sum([self.progress.loss], "loss_so_far")
        seconds = self.progress.seconds + time.monotonic() - self._started
        rows = self._batches.rows
        state = self._state or self._model.zero_state(rows.stop - rows.start)
        self._callbacks.commit(self.progress._replace(loss=loss, seconds=seconds), state)
