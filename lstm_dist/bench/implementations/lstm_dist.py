"""This project, with the same train_step that jobs/train.py uses."""

import math
from contextlib import ExitStack
from typing import Any, Dict, Optional, Type

import mxnet as mx
import numpy as np

from lstm_dist.bench.implementation import LEARNING_RATE, MAX_NORM, Implementation, WorkerAssignment
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.data.batching import Window
from lstm_dist.model.create import create_model
from lstm_dist.model.language_model import LanguageModel
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.callbacks import Callbacks
from lstm_dist.train.interval import Interval, Intervals
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.run_callbacks import GuardedCallbacks
from lstm_dist.train.step import Schedule, StepResult, train_step
from lstm_dist.train.step_timer import NOT_PROFILED, RunningStepTimer, StepTimer


class LstmDist(Implementation):
    """This project's step, on one worker of a job."""

    world_type: Type[HorovodWorld] = HorovodWorld

    def __init__(self, assignment: WorkerAssignment) -> None:
        case = assignment.case
        self._world = self.world_type.open()
        self._model = self.create_model(case.vocab_size, case.hidden_size)
        self._model.load(assignment.parameters, "the initial weights")
        self._state = self._model.zero_state(assignment.streams)
        self._schedule = Schedule(
            epochs=1,
            learning_rate=LearningRate(LEARNING_RATE),
            max_norm=MAX_NORM,
            gradient_scale=self._world.size,
            wire_dtype="float32",
            resets_every_window=False,
            chars_per_step=case.streams * case.seq_len,
        )
        self._callbacks = Callbacks()
        self._last: Optional[StepResult] = None
        self._steps = 0

    def create_model(self, vocab_size: int, hidden_size: int) -> LanguageModel:
        """Return the model without values."""
        return create_model(vocab_size, hidden_size, mx.cpu())

    def backward(self, window: Window) -> Any:
        """Run train_step and keep the exchanged gradients; statistics are read one step later, as in `Trainer`."""
        requests, timer = self._callbacks.requests(), self._timer()
        self._state, result = train_step(self._model, window, self._state, self._world, self._schedule, requests, timer)
        self._finish_step()
        self._last = result
        return result.numbers[:1]

    def _timer(self) -> StepTimer:
        return NOT_PROFILED

    def _finish_step(self) -> None:
        if self._last is not None:
            self._last.read()
            self._steps += 1
            self._callbacks.beat("step", self._steps)
            self._last = None

    def update(self) -> None:
        """Do nothing, as train_step takes the SGD step."""

    def gradients(self) -> Dict[str, np.ndarray]:
        """See `Implementation`."""
        return self._model.get_gradients()

    def wait(self) -> None:
        """See `Implementation`."""
        mx.nd.waitall()

    def close(self) -> None:
        """Shut down Horovod together with the other workers."""
        self._world.__exit__(None, None, None)


class LstmDistGuarded(LstmDist):
    """The step with the checks of jobs/train.py: signals, stop file, time limit, watchdog and due checkpoints."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        super().__init__(assignment)
        stop, watchdog = StopRequest(), Watchdog()
        stop.watch(assignment.folder, math.inf)
        self._guards = ExitStack()
        self._guards.enter_context(stop)
        self._guards.enter_context(watchdog)
        self._callbacks = GuardedCallbacks(self._world, stop, watchdog, Intervals(checkpoint=Interval(seconds=60.0)))

    def close(self) -> None:
        """Stop the checks, then shut down."""
        self._guards.close()
        super().close()


class LstmDistTimed(LstmDist):
    """The step with profiling of its parts, which jobs/train.py applies to one step in --time-every."""

    def _timer(self) -> StepTimer:
        self._finish_step()
        return RunningStepTimer()


class LstmDistDense(LstmDist):
    """The step in which the gradient of all rows of W_x is computed, exchanged and used."""

    def backward(self, window: Window) -> Any:
        """See `LstmDist`."""
        return super().backward(window._replace(characters=None))


class LstmDistLoop(LstmDist):
    """The step on the first GPU, with one product and one kernel for each step of the recurrence."""

    recurrence = "loop"

    def create_model(self, vocab_size: int, hidden_size: int) -> LanguageModel:
        """See `LstmDist`."""
        return create_model(vocab_size, hidden_size, mx.gpu(0), recurrence=self.recurrence)


class LstmDistPersistent(LstmDistLoop):
    """The step on the first GPU, with one kernel for all steps of the recurrence."""

    recurrence = "persistent"


class _WithoutExchange(HorovodWorld):
    """A process group that leaves the gradients of each worker as they are."""

    def average_(self, array: Any, name: str, scale: float = 1.0, wire_dtype: str = "float32") -> None:
        """Do nothing."""


class LstmDistWithoutExchange(LstmDist):
    """The step without the exchange of gradients, as the baseline that shows the cost of communication."""

    world_type = _WithoutExchange

    def gradients(self) -> Dict[str, np.ndarray]:
        """Return no gradients, as those of one worker's streams are not the sum over all workers."""
        return {}
