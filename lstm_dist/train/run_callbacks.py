"""The callbacks of a training job: requests to stop or to write a checkpoint, samples, and checkpoints."""

import hashlib
import math
import time
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
from tqdm import tqdm

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.world import World
from lstm_dist.errors import ExitStatus
from lstm_dist.model.control_flags import ControlFlags
from lstm_dist.model.generate import continue_text
from lstm_dist.model.language_model import LSTMState
from lstm_dist.run.checkpoint import STATE, pack
from lstm_dist.run.checkpoint_dir import CheckpointDir
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.callbacks import Callbacks, Progress
from lstm_dist.train.epoch_forecast import EpochForecast
from lstm_dist.train.interval import IntervalClock, Intervals
from lstm_dist.train.metrics import perplexity
from lstm_dist.train.session import Session


class GuardedCallbacks(Callbacks):
    """Callbacks that request stops and periodic checkpoints, and report progress to the watchdog."""

    def __init__(self, world: World, stop: StopRequest, watchdog: Watchdog, every: Intervals) -> None:
        """Make the callbacks.

        Args:
            world: all workers.
            stop: the stop requests of this worker.
            watchdog: receives the progress.
            every: how often the run reports, evaluates and writes a checkpoint; the root requests what is due by its
                clock.
        """
        self._world, self._stop, self._watchdog = world, stop, watchdog
        self._clocks = {name: IntervalClock(interval) for name, interval in every._asdict().items()}
        self._phase = ""

    def requests(self) -> ControlFlags:
        """Return whether this worker wants to stop and, on the root, what is due by the clock."""
        wants_stop = self._stop.is_requested()
        if not self._world.is_root:
            return ControlFlags(wants_stop)
        # What is due follows the next step; its clock restarts here, so that it is not requested again until then.
        due = {name: clock.take() for name, clock in self._clocks.items()}
        return ControlFlags(wants_stop, due["checkpoint"], due["log"], due["evaluation"])

    def beat(self, phase: str, step: int) -> None:
        """Report progress to the watchdog."""
        self._phase = phase
        self._watchdog.beat(phase, step)

    def begin_steps(self, step: int) -> None:
        """Give the watchdog's time for a step after a checkpoint or evaluation, whose end all ranks reach at once.

        After samples, it has to be that for samples, because the root may still be writing them.
        """
        if self._phase in ("checkpoint", "validation"):
            self.beat("step", step)


class RunCallbacks(GuardedCallbacks):
    """The callbacks of a training run; only the root writes files."""

    def __init__(self, session: Session, facts: Mapping[str, Any], stop: StopRequest, watchdog: Watchdog) -> None:
        """Make the callbacks.

        Args:
            session: the open training run.
            facts: metadata of a checkpoint in addition to weights, state and progress.
            stop: the stop requests of this worker.
            watchdog: receives the progress.
        """
        super().__init__(session.world, stop, watchdog, session.job.settings.every)
        self._session, self._facts = session, dict(facts)
        self._model = session.job.model
        self._checkpoints = CheckpointDir.of_run(session.run_dir)
        self._best: Optional[float] = None  # lowest validation loss; None until it is looked up
        self._forecast = EpochForecast()

    def beat(self, phase: str, step: int) -> None:
        """Report progress to the watchdog and the record, and, once, how long an epoch of a large text takes."""
        super().beat(phase, step)
        self._session.record.enter(phase, step)
        self._session.meter.keep_up()
        job = self._session.job
        is_done = phase == "step" and step > self._session.first_step
        seconds = self._forecast.seconds(step, job.batches.steps_per_epoch) if is_done else None
        if seconds is not None:
            epochs, interval = job.settings.epochs, tqdm.format_interval
            self._session.log.say(
                f"an epoch takes about {interval(seconds)}, all {epochs} epochs {interval(epochs * seconds)}: lower "
                "--epochs, or --max-chars to train on the beginning of the text"
            )

    def begin_steps(self, step: int) -> None:
        """Count the time from here on as that of steps."""
        super().begin_steps(step)
        self._session.record.enter("step", step)

    def joules(self) -> Tuple[float, float]:
        """Return the energy that this worker has accounted for so far."""
        return self._session.meter.joules()

    def write_samples(self, epoch: int) -> None:
        """Show and write a continuation of every prefix, on the root."""
        job = self._session.job
        for prefix in job.prefixes if self._world.is_root else []:
            text = continue_text(self._model, job.text.vocabulary, prefix, job.settings.sample_length)
            self._session.log.sample(epoch, prefix, text)

    def validate(self, epoch: float, loss: float) -> None:
        """Save the weights on the root if they are the best so far.

        Raises:
            CollectiveError: on every rank, if they cannot be written.
        """
        self._world.run_on_root(lambda: self._keep_best(epoch, loss), "best")
        self._clocks["evaluation"].restart()
        if self._session.job.settings.every.evaluation.is_within_epochs:  # then it is part of a report
            self._clocks["log"].restart()

    def _keep_best(self, epoch: float, loss: float) -> None:
        if self._best is None:
            best = self._checkpoints.best()
            self._best = best.facts["valid"]["loss"] if best and "valid" in best.facts else math.inf
        if loss < self._best:
            self._best = loss
            valid = {"loss": loss, "perplexity": perplexity(loss), "epoch": epoch}
            job, parameters = self._session.job, self._model.get_parameters()
            facts = {"config": {"prefix": job.prefixes}, "code": self._facts["code"]}
            data = pack(parameters, job.text.vocabulary, valid=valid, **facts)
            self._checkpoints.commit_best(data)

    def commit(self, progress: Progress, state: LSTMState) -> None:
        """Write a checkpoint after checking that the weights are equal on all ranks.

        Raises:
            CollectiveError: on every rank, if the weights differ or are not finite, or the checkpoint is not written.
        """
        weights = self._model.weights.asnumpy()
        self._world.require_equal(
            {"weights": hashlib.sha256(weights).hexdigest()},
            f"step {progress.step}",
            "a GPU or memory may be faulty, or the hosts may have different processors; --resume continues from the "
            "last checkpoint",
            ExitStatus.INTERNAL,
        )
        if not np.isfinite(weights).all():  # raised on every rank, because the weights are equal
            raise CollectiveError(
                f"step {progress.step}: the weights are not finite: lower --learning-rate or --max-norm; the last "
                "checkpoint is from before this step",
                ExitStatus.NOT_FINITE,
            )
        streams = {name: self._world.gather_rows(part, name) for name, part in zip(STATE, state)}
        self._world.run_on_root(lambda: self._write(progress, streams), "commit")
        self._clocks["checkpoint"].restart()

    def _write(self, progress: Progress, streams: Dict[str, np.ndarray]) -> None:
        started, session = time.monotonic(), self._session
        session.log.sync()
        parameters, vocabulary = self._model.get_parameters(), session.job.text.vocabulary
        data = pack(parameters, vocabulary, streams, progress=progress._asdict(), **self._facts)
        path = self._checkpoints.commit(progress.step, data)
        session.log.note(f"committed {path.name} in {1000 * (time.monotonic() - started):.0f} ms")
        session.record.commit(progress.step, progress.epoch, path.name)
