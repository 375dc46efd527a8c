"""The training loop.

Each worker runs the hand-written LSTM forward and backward on its shard of the batch streams. Horovod averages the
gradients, every worker clips the average by its global norm and takes the same SGD step, and rank 0 writes perplexity,
samples and checkpoints.
"""

import time
from math import isnan
from typing import List, NamedTuple, Optional, Union

from lstm_dist.comm.world import World
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches, Window
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LanguageModel, LSTMState
from lstm_dist.run.epoch_metrics import EpochMetrics
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.step_times import StepTimes
from lstm_dist.train.callbacks import BEGINNING, Callbacks, Progress, ReplayCallbacks
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.metrics import bits_per_char, perplexity
from lstm_dist.train.step import Schedule, StepResult, train_step
from lstm_dist.train.step_timer import NOT_PROFILED, RunningStepTimer, StepTimer, collect

Batches = Union[ConsecutiveBatches, RandomBatches]


class TrainingResult(NamedTuple):
    """How a call of `Trainer.run` ended.

    Attributes:
        progress: the last position.
        was_stopped: whether a stop request ended training.
    """

    progress: Progress
    was_stopped: bool


class Trainer:
    """The loop over steps and epochs, from a given position of a run to its end.

    Attributes:
        progress: the current position; exact whenever a callback is called.
    """

    def __init__(
        self,
        model: LanguageModel,
        batches: Batches,
        world: World,
        schedule: Schedule,
        log: RunLog,
        callbacks: Callbacks,
        progress: Progress = BEGINNING,
        state: Optional[LSTMState] = None,
        evaluator: Optional[Evaluator] = None,
    ) -> None:
        self._model = model
        self._batches = batches
        self._world = world
        self._schedule = schedule
        self._log = log
        self._callbacks = callbacks
        self._evaluator = evaluator
        # Every worker sums its own losses, so the earlier sum over all workers is kept on the root only.
        self.progress = progress if world.is_root else progress._replace(loss=0.0)
        self._state = state if progress.position else None
        self._pending: Optional[StepResult] = None
        self._agreed = NO_REQUEST
        self._is_over = progress.epoch >= schedule.epochs
        self._times: List[StepTimes] = []
        self._started = self._epoch_started = time.monotonic()
        self._epoch_step, self._epoch_joules = progress.step, callbacks.joules()

    def run(self, until_step: Optional[int] = None) -> TrainingResult:
        """Train to the last epoch, to `until_step`, or until a worker requests a stop; then commit a checkpoint.

        Raises:
            NotFiniteError: on every rank; `progress` is then that of the previous step, but the weights are not.
        """
        self._world.broadcast_(self._model.weights, "initial_parameters")
        if self.progress.step == 0:
            self._commit()
        self._callbacks.beat("step", self.progress.step)  # on all ranks at once, as both above are collective
        while not self._is_over and self.progress.step != until_step and not self._agreed.stop:
            self._train_epoch(until_step)
        return TrainingResult(self.progress, self._agreed.stop)

    def replay(self, progress: Progress, state: LSTMState, until_step: int) -> None:
        """Repeat training from an earlier position to `until_step` or a stop, and commit there without logging."""
        schedule = self._schedule._replace(checkpoint_epochs=0, time_every=0)
        callbacks = ReplayCallbacks(self._callbacks)
        again = Trainer(self._model, self._batches, self._world, schedule, RunLog(), callbacks, progress, state)
        again.run(until_step)

    def _train_epoch(self, until_step: Optional[int]) -> None:
        """Train to the end of the epoch, to `until_step`, or until the workers agree on a request; commit if due."""
        self._train_steps(until_step)
        is_at_end = self.progress.position == self._batches.steps_per_epoch
        if is_at_end:
            if self._agreed.stop and self._evaluator is not None:
                self._commit()  # validation may outlast the grace period of the stop request
            self._finish_epoch()
        if any(self._agreed) or self.progress.step == until_step or (is_at_end and self._is_checkpoint_due()):
            self._commit()

    def _train_steps(self, until_step: Optional[int]) -> None:
        """Run the remaining steps of the epoch, and stop early at `until_step` or at an agreed request."""
        self._agreed = NO_REQUEST
        self._callbacks.begin_steps(self.progress.step)
        first = self.progress.step + 1
        last = self.progress.step + self._batches.steps_per_epoch - self.progress.position
        windows = self._batches.epoch(self.progress.epoch + 1, self.progress.position)
        for step in range(first, min(last, until_step or last) + 1):
            is_profiled = self._schedule.time_every > 0 and step % self._schedule.time_every == 0
            if is_profiled:
                self._finish_step()  # a profiled step runs alone
            if any(self._agreed):
                break
            timer = RunningStepTimer() if is_profiled else NOT_PROFILED
            window = next(windows)
            timer.lap()
            self._start_step(step, window, timer)
            if isinstance(timer, RunningStepTimer):
                self._times.append(timer.read(step))
        self._finish_step()

    def _start_step(self, step: int, window: Window, timer: StepTimer) -> None:
        """Start a step, and then wait for the previous one.

        The device thus has work while Python waits for the loss of the previous step and cuts the next window. For the
        same reason the workers act on a request one step after they have agreed on it.
        """
        if self._state is None or self._schedule.resets_every_window:
            self._state = self._model.zero_state(len(window.inputs))
        requests = self._callbacks.requests()
        self._state, result = train_step(
            self._model, window, self._state, self._world, self._schedule, requests, timer, step - 1
        )
        self._finish_step()
        self._pending = result

    def _finish_step(self) -> None:
        """Wait for the last started step, if any, and add its loss and the agreed requests to the progress."""
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        loss, grad_norm, agreed = pending.read()
        self._agreed = ControlFlags(*(a or b for a, b in zip(self._agreed, agreed)))
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
        """Log the epoch, write its samples and profiles, and move on to the next one."""
        metrics = self._measure_epoch()
        self._is_over = metrics.epoch == self._schedule.epochs or metrics.perplexity <= self._schedule.until_perplexity
        is_shown = metrics.epoch % self._schedule.log_every == 0 or self._is_over
        if self._schedule.time_every:
            self._log.times(metrics.epoch, collect(self._times, self._world))
            self._times = []
        self._log.epoch(metrics, is_shown)
        if is_shown:
            self._callbacks.beat("samples", metrics.step)
            self._callbacks.write_samples(metrics.epoch)
        self.progress = self.progress._replace(epoch=metrics.epoch, position=0, loss=0.0, grad_norm=0.0)
        self._state, self._epoch_step, self._epoch_joules = None, metrics.step, self._callbacks.joules()
        self._epoch_started = time.monotonic()

    def _measure_epoch(self) -> EpochMetrics:
        """Return the metrics of the finished epoch, over all workers."""
        done, steps = self.progress, self._batches.steps_per_epoch
        epoch, chars = done.epoch + 1, self._schedule.chars_per_step
        # Reduce sums and divide once: a mean of the workers' means would be wrong for shards of different sizes.
        joules = [now - before for now, before in zip(self._callbacks.joules(), self._epoch_joules)]
        total_loss, packages, gpus = self._world.sum([done.loss, *joules], "epoch_sums")
        loss, now = total_loss / (steps * chars), time.monotonic()
        validation_loss = self._validate(epoch)
        return EpochMetrics(
            epoch=epoch,
            step=done.step,
            loss=loss,
            perplexity=perplexity(loss),
            bits_per_char=bits_per_char(loss),
            grad_norm=done.grad_norm / steps,
            chars_per_sec=(done.step - self._epoch_step) * chars / (now - self._epoch_started),
            seconds=done.seconds + now - self._started,
            valid_perplexity=None if validation_loss is None else perplexity(validation_loss),
            package_joules=None if isnan(packages) else float(packages),
            gpu_joules=None if isnan(gpus) else float(gpus),
        )

    def _validate(self, epoch: int) -> Optional[float]:
        """Return the validation loss; None without a validation set, or if no evaluation is due."""
        if self._evaluator is None or epoch % self._schedule.eval_every != 0:
            return None
        step = self.progress.step
        self._callbacks.beat("validation", step)
        loss = self._evaluator.evaluate(self._model, lambda _: self._callbacks.beat("validation", step)).loss
        self._callbacks.validate(epoch, loss)
        return loss

    def _is_checkpoint_due(self) -> bool:
        every = self._schedule.checkpoint_epochs
        return self._is_over or (every > 0 and self.progress.epoch % every == 0)

    def _commit(self) -> None:
        self._callbacks.beat("checkpoint", self.progress.step)
        (loss,) = self._world.sum([self.progress.loss], "loss_so_far")
        seconds = self.progress.seconds + time.monotonic() - self._started
        rows = self._batches.rows
        state = self._state or self._model.zero_state(rows.stop - rows.start)
        self._callbacks.commit(self.progress._replace(loss=loss, seconds=seconds), state)
