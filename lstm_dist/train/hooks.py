"""Training callbacks: request stops and checkpoints, commit checkpoints, and record how a run ends."""

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
    """The training callbacks of every worker; only the root writes files.

    Attributes:
        every: seconds between two checkpoints by the root's clock; 0 means never.
        facts: metadata of a checkpoint in addition to weights, state and progress.
        samples: writes the samples of an epoch.
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
        self._best: Optional[float] = None  # lowest validation loss; None until it is looked up
        self.every = 0.0
        self.facts: Dict[str, Any] = {}
        self.samples: Callable[[int], None] = lambda _: None

    def vote(self) -> Votes:
        """Return whether this worker wants to stop, and, on the root, whether a checkpoint is due."""
        now = time.monotonic()
        due = self._world.is_root and 0 < self.every <= now - self._last
        if due:
            self._last = now  # the checkpoint follows the next step; do not request it again until then
        return Votes(self._stop.asked(), due)

    def beat(self, phase: str, step: int) -> None:
        """Report progress to the watchdog."""
        self._watchdog.beat(phase, step)

    def write_samples(self, epoch: int) -> None:
        """Write the samples of an epoch with the `samples` callback."""
        self.samples(epoch)

    def validate(self, epoch: int, loss: float) -> None:
        """Save the weights on the root if they are the best so far.

        Raises:
            SettledError: on every rank, if they cannot be written.
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
        """Write a checkpoint after checking that the weights are equal on all ranks.

        Raises:
            SettledError: on every rank, if the weights differ or are not finite, or the checkpoint cannot be written.
        """
        weights = self._model.parameters.flat.asnumpy()
        self._world.require_equal(
            {"weights": hashlib.sha256(weights).hexdigest()},
            f"step {progress.step}",
            "a GPU or a memory may be faulty, or the hosts' processors of different kinds; --resume goes on from the "
            "last checkpoint",
            ExitStatus.INTERNAL,
        )
        if not np.isfinite(weights).all():  # raised on every rank, because the weights are equal
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
    """Wrap a run: record the cause of a failure of this rank in the run directory."""

    def leave_word(status: int, kind: str, message: str) -> None:
        record(run_dir, world.rank, watchdog.step, status, kind, message)
        cause = first_cause(run_dir)  # may be another rank's; the root may end before it can report it
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
        # A broken pipe means that the reader of the output, such as horovodrun, is gone.
        lost = is_peer_failure(error) or isinstance(error, BrokenPipeError)
        status = ExitStatus.PEER_LOST if lost else known
        if world.is_root or not isinstance(error, SettledError):
            leave_word(status, type(error).__name__, str(error))
        raise


def leave_stopped(run_dir: Path, world: World, log: RunLog, stop: Stop, step: int) -> NoReturn:
    """Report the source of the stop request, and exit with the status for a run to be resumed."""
    reasons = world.gather_text(stop.reason, "reasons")
    rank = next((r for r, reason in enumerate(reasons) if reason), 0)
    where = f"--resume --run-dir {shlex.quote(str(run_dir))}"
    log.say(f"stopped by {reasons[rank]} on rank {rank} after step {step}; go on with {where}")
    if world.is_root:
        write_status(run_dir, "stopped", step=step, reason=reasons[rank], rank=rank)
        stop.forget()
    raise SystemExit(int(ExitStatus.STOPPED))
