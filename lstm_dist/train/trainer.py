"""The training loop.

Each worker runs the hand-written LSTM forward and backward on its shard of the batch streams. Horovod averages the
gradients, every worker clips the average by its global norm and takes the same SGD step, and rank 0 writes perplexity,
samples and checkpoints.
"""

from typing import List, NamedTuple, Optional, Union

from lstm_dist.comm.world import World
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches, Window
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LanguageModel, LSTMState
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.step_times import StepTimes
from lstm_dist.train.callbacks import BEGINNING, Callbacks, Progress, ReplayCallbacks
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.interval import NEVER
from lstm_dist.train.measurement import Measurement
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
        # Every worker sums its own losses, so the earlier sum over all workers is kept on the root only.
        self.progress = progress if world.is_root else progress._replace(loss=0.0, unreported_loss=0.0)
        self._state = state if progress.position else None
        self._pending: Optional[StepResult] = None
        self._agreed = NO_REQUEST
        self._is_over = progress.epoch >= schedule.epochs
        self._times: List[StepTimes] = []
        self._evaluation_step = -1  # after which an evaluation is due that the workers have agreed on
        self._can_evaluate = evaluator is not None
        self._measured = Measurement(model, world, schedule, callbacks, batches.steps_per_epoch, progress, evaluator)

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
        schedule = self._schedule._replace(every=self._schedule.every._replace(checkpoint=NEVER), time_every=0)
        callbacks = ReplayCallbacks(self._callbacks)
        again = Trainer(self._model, self._batches, self._world, schedule, RunLog(), callbacks, progress, state)
        again.run(until_step)

    def _train_epoch(self, until_step: Optional[int]) -> None:
        """Train to the end of the epoch, to `until_step`, or until the workers agree on a request; commit if due."""
        self._train_steps(until_step)
        is_at_end = self.progress.position == self._batches.steps_per_epoch
        if is_at_end:
            if self._agreed.stop and self._can_evaluate:
                self._commit()  # validation may outlast the grace period of the stop request
            self._finish_epoch()
        is_due = is_at_end and (
            self._is_over or self._schedule.every.checkpoint.is_due_after_epoch(self.progress.epoch)
        )
        if is_due or self._agreed.need_checkpoint or self.progress.step == until_step:
            self._commit()

    def _train_steps(self, until_step: Optional[int]) -> None:
        """Run the remaining steps of the epoch, and stop early at `until_step` or at an agreed request."""
        self._agreed = NO_REQUEST
        self._callbacks.begin_steps(self.progress.step)
        self._report_if_due()  # if it was left out because of a stop request
        first = self.progress.step + 1
        last = self.progress.step + self._batches.steps_per_epoch - self.progress.position
        windows = self._batches.epoch(self.progress.epoch + 1, self.progress.position)
        for step in range(first, min(last, until_step or last) + 1):
            is_profiled = self._schedule.time_every > 0 and step % self._schedule.time_every == 0
            if is_profiled or self._uses_weights_after(step - 1):
                self._finish_step()  # before the next one starts
            if self._agreed.need_checkpoint:
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
        """Wait for the last started step, if any, add its loss to the progress, and report if it is time to.

        A report alone does not wait for the step that may have started since. An evaluation needs all steps finished,
        which `_train_steps` sees to.
        """
        if self._pending is None:
            return
        pending, self._pending = self._pending, None
        loss, grad_norm, agreed = pending.read()
        self._agreed = ControlFlags(*(a or b for a, b in zip(self._agreed, agreed)))
        now, step = self.progress, self.progress.step + 1
        self.progress = now._replace(
            step=step,
            position=now.position + 1,
            loss=now.loss + loss,
            grad_norm=now.grad_norm + grad_norm,
            unreported_steps=now.unreported_steps + 1,
            unreported_loss=now.unreported_loss + loss,
            unreported_grad_norm=now.unreported_grad_norm + grad_norm,
        )
        self._callbacks.beat("step", step)
        self._log.advance(self._schedule.chars_per_step)
        if self._schedule.every.checkpoint.is_due_after_step(step):
            self._agreed = self._agreed._replace(checkpoint=True)
        if agreed.evaluate:
            self._evaluation_step = step + 1  # which may have started; a report comes with it
        if not (self._agreed.stop and self._is_evaluation_due(step)):  # it may outlast the request's grace period
            self._report_if_due(agreed.report and not agreed.evaluate)

    def _uses_weights_after(self, step: int) -> bool:
        """Return whether the weights after this step are evaluated or saved, before the next one changes them."""
        return self._is_evaluation_due(step) or self._schedule.every.checkpoint.is_due_after_step(step)

    def _is_evaluation_due(self, step: int) -> bool:
        """Return whether an evaluation inside epochs is due after this step."""
        return step == self._evaluation_step or self._schedule.every.evaluation.is_due_after_step(step)

    def _report_if_due(self, is_requested: bool = False) -> None:
        """Report the steps since the last report if one is requested or due after the last step."""
        done, step = self.progress, self.progress.step
        evaluates = self._is_evaluation_due(step)
        is_due = evaluates or is_requested or self._schedule.every.log.is_due_after_step(step)
        if is_due and done.unreported_steps:
            self._log_times()
            self._log.report(self._measured.report(done, evaluates))
            self.progress = done.reported()
            if evaluates:
                self._callbacks.begin_steps(step)

    def _log_times(self) -> None:
        """Log the steps that were profiled since the last time, of all workers."""
        if self._schedule.time_every:
            self._log.times(self.progress.epoch + 1, collect(self._times, self._world))
            self._times = []

    def _finish_epoch(self) -> None:
        """Log the epoch, write its samples and profiles, and move on to the next one."""
        self._report_if_due()
        every, done = self._schedule.every, self.progress
        metrics = self._measured.epoch(done, every.evaluation.is_due_after_epoch(done.epoch + 1))
        self._is_over = metrics.epoch == self._schedule.epochs or metrics.perplexity <= self._schedule.until_perplexity
        has_report = done.reported_step > metrics.step - self._batches.steps_per_epoch
        is_due = has_report if every.log.is_within_epochs else every.log.is_due_after_epoch(metrics.epoch)
        is_shown = is_due or self._is_over
        self._log_times()
        self._log.epoch(metrics, is_shown)
        if is_shown:
            self._callbacks.beat("samples", metrics.step)
            with self._measured.pause():
                self._callbacks.write_samples(metrics.epoch)
        self.progress = done._replace(epoch=metrics.epoch, position=0, loss=0.0, grad_norm=0.0)
        if not every.report_steps:  # the first report of a run that is resumed with reports begins here
            self.progress = self.progress.reported()
        self._state = None
        self._measured.begin_epoch(metrics.step)

    def _commit(self) -> None:
        self._callbacks.beat("checkpoint", self.progress.step)
        self._log_times()  # a run that is resumed from here does not repeat these steps
        loss, unreported = self._world.sum([self.progress.loss, self.progress.unreported_loss], "loss_so_far")
        rows = self._batches.rows
        state = self._state or self._model.zero_state(rows.stop - rows.start)
        self._callbacks.commit(
            self.progress._replace(loss=loss, unreported_loss=unreported, seconds=self._measured.seconds()), state
        )
