"""The interface between the training loop and what happens around it: requests, samples, validation, checkpoints."""

from math import nan
from typing import NamedTuple, Tuple

from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LSTMState


class Progress(NamedTuple):
    """The position of a run: everything needed to resume it, apart from weights and state.

    Attributes:
        step: updates so far.
        epoch: finished epochs.
        position: finished windows of the current epoch.
        loss: nats, summed over those windows and all workers.
        grad_norm: summed over those windows.
        seconds: of training.
        unreported_steps: since the last report of steps.
        unreported_loss: nats, summed over those steps and all workers.
        unreported_grad_norm: summed over those steps.
    """

    step: int = 0
    epoch: int = 0
    position: int = 0
    loss: float = 0.0
    grad_norm: float = 0.0
    seconds: float = 0.0
    unreported_steps: int = 0
    unreported_loss: float = 0.0
    unreported_grad_norm: float = 0.0

    @property
    def reported_step(self) -> int:
        """Return the step after which the last report was written."""
        return self.step - self.unreported_steps

    def reported(self) -> "Progress":
        """Return the same position after a report of the steps so far."""
        return self._replace(unreported_steps=0, unreported_loss=0.0, unreported_grad_norm=0.0)


BEGINNING = Progress()


class Callbacks:
    """Callbacks of the training loop; these do nothing."""

    def requests(self) -> ControlFlags:
        """Return the actions that this worker requests; called before every step."""
        return NO_REQUEST

    def beat(self, phase: str, step: int) -> None:
        """Report progress: `step` is finished, and `phase` comes next."""

    def begin_steps(self, step: int) -> None:
        """Take note that steps follow: after `step`, at the beginning, an epoch's end, a checkpoint or evaluation."""

    def joules(self) -> Tuple[float, float]:
        """Return the energy that this worker has accounted for so far: of packages, of GPUs; nan if unknown."""
        return nan, nan

    def write_samples(self, epoch: int) -> None:
        """Write samples; called at the end of an epoch that is logged to the console."""

    def validate(self, epoch: float, loss: float) -> None:
        """Handle the validation loss after this number of epochs, a fraction inside one; called on every rank."""

    def commit(self, progress: Progress, state: LSTMState) -> None:
        """Write a checkpoint; called on every rank after the same step."""


class ReplayCallbacks(Callbacks):
    """Callbacks for repeating steps: forwards beats, checkpoints and stop requests only."""

    def __init__(self, callbacks: Callbacks) -> None:
        self._callbacks = callbacks

    def requests(self) -> ControlFlags:
        """Return a stop request, if there is one."""
        return ControlFlags(stop=self._callbacks.requests().stop)

    def beat(self, phase: str, step: int) -> None:
        """Forward the progress."""
        self._callbacks.beat(phase, step)

    def commit(self, progress: Progress, state: LSTMState) -> None:
        """Write a checkpoint."""
        self._callbacks.commit(progress, state)
