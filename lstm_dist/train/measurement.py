"""What the workers measure together while they train: the lines of metrics.jsonl."""

import time
from contextlib import contextmanager
from math import isnan
from typing import Iterator, NamedTuple, Optional

import numpy as np

from lstm_dist.comm.world import World
from lstm_dist.model.language_model import LanguageModel
from lstm_dist.run.metrics_file import EpochMetrics, StepsReport
from lstm_dist.train.callbacks import Callbacks, Progress
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.metrics import bits_per_char, perplexity
from lstm_dist.train.step import Schedule


class Mark(NamedTuple):
    """Where something that is measured begins.

    Attributes:
        step: the number of steps done before.
        readings: (3,), what the clock and this worker's counters showed: seconds, joules of packages and of GPUs.
    """

    step: int
    readings: np.ndarray


class Measurement:
    """Measures epochs and the steps between two reports, each from its end on, on all workers at once.

    Losses are summed over all workers and divided once: a mean of the workers' means would be wrong for shards of
    different sizes.
    """

    def __init__(
        self,
        model: LanguageModel,
        world: World,
        schedule: Schedule,
        callbacks: Callbacks,
        steps_per_epoch: int,
        progress: Progress,
        evaluator: Optional[Evaluator] = None,
    ) -> None:
        """Begin to measure after the given progress; without evaluator there is no validation set."""
        self._model, self._world, self._schedule, self._callbacks = model, world, schedule, callbacks
        self._steps_per_epoch, self._evaluator = steps_per_epoch, evaluator
        self._started = time.monotonic() - progress.seconds
        self._epoch = self._report = Mark(progress.step, self._read())
        self._evaluated_step, self._valid_perplexity = -1, 0.0

    def seconds(self) -> float:
        """Return the seconds of training."""
        return time.monotonic() - self._started

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Leave the block, in which no step is done, out of speeds and energies."""
        before = self._read()
        yield
        spent = self._read() - before
        self._epoch, self._report = (Mark(step, readings + spent) for step, readings in (self._epoch, self._report))

    def begin_epoch(self, step: int) -> None:
        """Measure an epoch from here on, after `step`."""
        self._epoch = Mark(step, self._read())

    def epoch(self, done: Progress, evaluates: bool) -> EpochMetrics:
        """Return the metrics of the epoch that has ended, with the validation perplexity if it is known.

        Args:
            done: the progress, before it is that of the next epoch.
            evaluates: whether to evaluate the model; not needed if the last report did.
        """
        elapsed, *joules = self._read() - self._epoch.readings
        total_loss, packages, gpus = map(float, self._world.sum([done.loss, *joules], "epoch_sums"))
        seconds, loss = self.seconds(), total_loss / (done.position * self._schedule.chars_per_step)
        if evaluates:
            self._validate(done)
        return EpochMetrics(
            epoch=done.epoch + 1,
            step=done.step,
            loss=loss,
            perplexity=perplexity(loss),
            bits_per_char=bits_per_char(loss),
            grad_norm=done.grad_norm / done.position,
            chars_per_sec=self._speed(done.step - self._epoch.step, elapsed),
            seconds=seconds,
            valid_perplexity=self._known_validation(done.step),
            package_joules=None if isnan(packages) else packages,
            gpu_joules=None if isnan(gpus) else gpus,
        )

    def report(self, done: Progress, evaluates: bool) -> StepsReport:
        """Return the metrics of the steps since the last report, of which there is at least one."""
        steps = done.unreported_steps
        (total_loss,) = map(float, self._world.sum([done.unreported_loss], "report_loss"))
        seconds, loss = self.seconds(), total_loss / (steps * self._schedule.chars_per_step)
        speed = self._speed(done.step - self._report.step, (self._read() - self._report.readings)[0])
        if evaluates:
            self._validate(done)
        self._report = Mark(done.step, self._read())
        return StepsReport(
            epoch=self._epochs(done),
            step=done.step,
            steps=steps,
            loss=loss,
            perplexity=perplexity(loss),
            bits_per_char=bits_per_char(loss),
            grad_norm=done.unreported_grad_norm / steps,
            learning_rate=self._schedule.learning_rate.at(done.step - 1),
            chars_per_sec=speed,
            seconds=seconds,
            valid_perplexity=self._known_validation(done.step),
        )

    def _read(self) -> np.ndarray:
        """Return the readings of a mark."""
        return np.array([time.monotonic(), *self._callbacks.joules()])

    def _speed(self, steps: int, seconds: float) -> float:
        """Return characters per second; after a resume only the steps since then are counted."""
        return float(steps * self._schedule.chars_per_step / seconds)

    def _epochs(self, done: Progress) -> float:
        """Return the number of epochs so far, a fraction inside one."""
        is_at_end = done.position == self._steps_per_epoch
        return done.epoch + 1 if is_at_end else done.epoch + done.position / self._steps_per_epoch

    def _known_validation(self, step: int) -> Optional[float]:
        return self._valid_perplexity if self._evaluated_step == step else None

    def _validate(self, done: Progress) -> None:
        """Evaluate the model after its last step, if there is a validation set."""
        if self._evaluator is None:
            return
        self._callbacks.beat("validation", done.step)
        with self.pause():
            progress = self._evaluator.evaluate(self._model, lambda _: self._callbacks.beat("validation", done.step))
            self._callbacks.validate(self._epochs(done), progress.loss)
        self._evaluated_step, self._valid_perplexity = done.step, perplexity(progress.loss)
