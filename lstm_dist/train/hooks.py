"""The keeper of a run: asks for its stops and checkpoints, commits them, and finds the place to go on from."""

import hashlib
import math
import shlex
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, NoReturn, Optional

import numpy as np

from lstm_dist.comm.horovod_group import World, is_peer_failure
from lstm_dist.comm.process_group import SettledError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.char_lstm import CharLSTM, LSTMState
from lstm_dist.run.checkpoint import STATE, pack
from lstm_dist.run.checkpoint_dir import Store
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.status import first_cause, record, write_status
from lstm_dist.run.stop_request import Stop
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.metrics import perplexity
from lstm_dist.train.trainer import Callbacks, Progress, Votes


class Keeper(Callbacks):
    """What every worker's training calls back; the root of them writes.

    Attributes:
        every: seconds between two checkpoints by the root's clock; 0 is never.
        facts: what a checkpoint holds beside weights, state and progress.
        samples: writes those of an epoch.
    """

    def __init__(
        self,
        world: World,
        model: CharLSTM,
        vocabulary: Vocabulary,
        run_dir: Path,
        log: RunLog,
        stop: Stop,
        watchdog: Watchdog,
    ) -> None:
        self._world = world
        self._model = model
        self._vocabulary = vocabulary
        self._run_dir = run_dir
        self._store = Store(run_dir / "checkpoints")
        self._log = log
        self._stop = stop
        self._watchdog = watchdog
        self._last = time.monotonic()
        self._best: Optional[float] = None  # the least loss on the held out text; not looked for yet
        self.every = 0.0
        self.facts: Dict[str, Any] = {}
        self.samples: Callable[[int], None] = lambda _: None

    def vote(self) -> Votes:
        """This worker's wish to stop, and the root's clock for checkpoints."""
        now = time.monotonic()
        due = self._world.is_root and 0 < self.every <= now - self._last
        if due:
            self._last = now  # it is made after the next step, and not asked for again until then
        return Votes(self._stop.asked(), due)

    def beat(self, phase: str, step: int) -> None:
        """Tell the watchdog."""
        self._watchdog.beat(phase, step)

    def write_samples(self, epoch: int) -> None:
        """Have the root write them."""
        self.samples(epoch)

    def validate(self, epoch: int, loss: float) -> None:
        """Have the root keep the weights, if they are the best so far.

        Raises:
            SettledError: on every rank, when they cannot be written.
        """
        self._world.settle_root(lambda: self._keep_best(epoch, loss), "best")

    def _keep_best(self, epoch: int, loss: float) -> None:
        if self._best is None:
            best = self._store.best()
            self._best = best.facts["valid"]["loss"] if best and "valid" in best.facts else math.inf
        if loss < self._best:
            self._best = loss
            valid = {"loss": loss, "perplexity": perplexity(loss), "epoch": epoch}
            self._store.commit_best(pack(self._model.parameters.to_document(), self._vocabulary, valid=valid))

    def commit(self, progress: Progress, state: LSTMState) -> None:
        """Make a checkpoint of weights that are the same everywhere.

        Raises:
            SettledError: on every rank, when they are not, or are not finite, or it cannot be written.
        """
        weights = self._model.parameters.flat.asnumpy()
        self._world.require_equal(
            {"weights": hashlib.sha256(weights).hexdigest()},
            f"step {progress.step}",
            "a GPU or a memory may be faulty, or the hosts' processors of different kinds; --resume goes on from the "
            "last checkpoint",
            ExitStatus.INTERNAL,
        )
        if not np.isfinite(weights).all():  # on every rank, as they are the same
            raise SettledError(
                f"step {progress.step}: the weights are not finite: lower --learning-rate or --max-norm; the last "
                "checkpoint is of the steps before",
                ExitStatus.NOT_FINITE,
            )
        streams = {n: self._world.gather_rows(part, n) for n, part in zip(STATE, state)}
        self._world.settle_root(lambda: self._write(progress, streams), "commit")
        self._last = time.monotonic()

    def _write(self, progress: Progress, streams: Dict[str, np.ndarray]) -> None:
        started = time.monotonic()
        self._log.sync()
        parameters = self._model.parameters.to_document()
        data = pack(parameters, self._vocabulary, streams, progress=progress._asdict(), **self.facts)
        path = self._store.commit(progress.step, data)
        self._log.note(f"committed {path.name} in {1000 * (time.monotonic() - started):.0f} ms")
        write_status(self._run_dir, "running", step=progress.step, epoch=progress.epoch, checkpoint=path.name)


@contextmanager
def recorded(run_dir: Path, world: World, watchdog: Watchdog) -> Iterator[None]:
    """Around a run: why it ends on this rank, if it does not end well, stays in the run directory."""

    def leave_word(status: int, kind: str, message: str) -> None:
        record(run_dir, world.rank, watchdog.step, status, kind, message)
        cause = first_cause(run_dir)  # which may be another rank's, and the root may not live to tell it
        write_status(run_dir, "failed", step=watchdog.step, reason=cause.describe() if cause else message)

    if world.is_root:
        write_status(run_dir, "running", step=watchdog.step)
    watchdog.on_stall = lambda message, status: leave_word(status, "Stalled", message)
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        known = error.status if isinstance(error, UserError) else ExitStatus.INTERNAL
        # Whoever read the output is gone: nobody, or horovodrun.
        lost = is_peer_failure(error) or isinstance(error, BrokenPipeError)
        status = ExitStatus.PEER_LOST if lost else known
        if world.is_root or not isinstance(error, SettledError):
            leave_word(status, type(error).__name__, str(error))
        raise


def leave_stopped(run_dir: Path, world: World, log: RunLog, stop: Stop, step: int) -> NoReturn:
    """Say who asked for the stop, and end with the status that means "to be continued"."""
    reasons = world.gather_text(stop.reason, "reasons")
    rank = next((r for r, reason in enumerate(reasons) if reason), 0)
    where = f"--resume --run-dir {shlex.quote(str(run_dir))}"
    log.say(f"stopped by {reasons[rank]} on rank {rank} after step {step}; go on with {where}")
    if world.is_root:
        write_status(run_dir, "stopped", step=step, reason=reasons[rank], rank=rank)
        stop.forget()
    raise SystemExit(int(ExitStatus.STOPPED))
