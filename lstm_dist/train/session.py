"""An open training run on one rank: its job, run directory and log, and how its end is recorded."""

import os
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Dict, Iterator, Mapping, NamedTuple, NoReturn, Optional, Sequence

import mxnet as mx

from lstm_dist.attempt import ATTEMPT
from lstm_dist.cluster import devices, energy
from lstm_dist.cluster.cpu_affinity import Affinity, describe_pinning
from lstm_dist.comm.horovod_group import is_peer_failure
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.world import World
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import missing_guarantees, remove_former
from lstm_dist.run import timeline
from lstm_dist.run.checkpoint_dir import CheckpointDir
from lstm_dist.run.goodput import FAILED, FINISHED, STOPPED
from lstm_dist.run.pretrained import D2L_PREFIXES
from lstm_dist.run.resume_command import resume_command
from lstm_dist.run.run_card import CARD, read_card, with_starts
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.run.run_log import RootLog, RunLog
from lstm_dist.run.status import first_failure, record_failure
from lstm_dist.run.stop_request import PLANNED, StopRequest, remove_planned
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.attempt_record import AttemptRecord
from lstm_dist.train.callbacks import BEGINNING
from lstm_dist.train.metrics import has_diverged
from lstm_dist.train.preflight import inspect_run
from lstm_dist.train.resume import PreviousRun
from lstm_dist.train.setup import Job, make_schedule
from lstm_dist.train.start_record import Start
from lstm_dist.train.trainer import TrainingResult


class Session(NamedTuple):
    """An open training run on one rank.

    Attributes:
        job: what is trained.
        previous: the part of the run that is resumed; None for a new run.
        world: all workers.
        run_dir: the directory of the run.
        log: writes into `run_dir` on the root, and does nothing elsewhere.
        record: of this attempt, for its status and goodput.
        meter: of the energy that this worker accounts for.
        warnings: of the checks before the start; the root's are complete.
    """

    job: Job
    previous: Optional[PreviousRun]
    world: World
    run_dir: Path
    log: RunLog
    record: AttemptRecord
    meter: energy.Meter
    warnings: Sequence[str] = ()

    @property
    def first_step(self) -> int:
        """Return the number of steps that were done before."""
        return self.previous.progress.step if self.previous else 0


def open_session(job: Job, previous: Optional[PreviousRun], lock: Optional[IO[str]], world: World) -> Session:
    """Create or reopen the run directory and its log, record the start, and log the warnings of the preflight checks.

    Args:
        job: what is trained.
        previous: the part of the run that is resumed.
        lock: the root's lock on the run directory, if it is resumed.
        world: all workers.
    """
    chosen = world.run_on_root(lambda: choose_run_dir(job.settings.run_dir), "run_dir")
    shared = world.broadcast_object(str(chosen.resolve()) if chosen else None, "run_dir_name")
    run_dir = chosen or Path(shared)
    warnings = inspect_run(job, run_dir, world)
    log = world.run_on_root(lambda: _open_log(job, run_dir, previous, lock), "log") or RunLog()
    if world.is_root:
        warnings += missing_guarantees(run_dir)
    for line in warnings:
        log.say(line)
    record = AttemptRecord(run_dir, world, previous.progress.step if previous else 0)
    return Session(job, previous, world, run_dir, log, record, open_meter(job.model.ctx, world), warnings)


def open_meter(ctx: mx.Context, world: World) -> energy.Meter:
    """Return the meter of this worker: the first one of a host reads its packages, the first one of a GPU that GPU."""
    gpu = devices.gpu_of(ctx)
    place = [socket.gethostname(), gpu.bus if gpu else ""]
    places = world.allgather_object(place, "places")
    is_first_of_host = world.rank == [host for host, _ in places].index(place[0])
    is_first_of_gpu = gpu is not None and world.rank == places.index(place)
    return energy.Meter(
        energy.packages() if is_first_of_host else energy.NOTHING,
        energy.gpu(place[1]) if is_first_of_gpu else energy.NOTHING,
    )


def _open_log(job: Job, run_dir: Path, previous: Optional[PreviousRun], lock: Optional[IO[str]]) -> RootLog:
    may_exist = job.settings.overwrite or job.settings.auto_resume
    done = previous.progress if previous else BEGINNING
    epochs = done.epoch if previous else None
    log = RootLog(run_dir, may_exist, epochs, done.step, done.reported_step, lock, job.settings.tensorboard)
    if previous is None and not job.settings.auto_resume:  # else they are those of an attempt without a checkpoint
        remove_former(run_dir, timeline.FILE)
        remove_former(run_dir, CARD)
    remove_planned(run_dir)
    return log


def log_start(session: Session, process: Mapping[str, Any], affinity: Affinity) -> Dict[str, Any]:
    """Write config.json and run.json, and log the first lines.

    Args:
        session: the open run.
        process: from `provenance.describe_process`.
        affinity: the cores of this worker.

    Returns:
        The facts that go into every checkpoint.
    """
    job, previous, world, log = session.job, session.previous, session.world, session.log
    settings, resolved = job.settings, job.resolved(world.size)
    start = Start.gather(job, world, process, affinity, session.meter)
    chars_per_step = make_schedule(job, world.size).chars_per_step
    chars_per_epoch = job.batches.steps_per_epoch * chars_per_step
    card = with_starts(start.card(job, world, session.first_step, session.warnings), read_card(session.run_dir))
    log.start(resolved, card, settings.epochs, chars_per_epoch, session.first_step * chars_per_step)
    if os.geteuid() == 0:
        log.say("warning: running as root: all files will belong to root; use an account of your own")
    log.say(f"corpus: {job.text.describe()}")
    log.say(job.describe(world, sorted({rank["device"] for rank in start.ranks})))
    log.say(job.exchange.describe(settings.wire_dtype))
    if world.size > 1:
        log.say(describe_pinning([rank["pinning"] for rank in start.ranks]))
    for line in start.notes():
        log.say(line)
    if settings.prefix is None and job.prefixes != list(D2L_PREFIXES):
        log.say("the corpus lacks characters of the D2L chapter's prefixes: samples begin as its first lines do")
    for line in previous.lines(start.rounding, start.software, settings.epochs) if previous else []:
        log.say(line)
    return {"config": resolved, "seed": settings.seed, **start.software, **start.rounding}


@contextmanager
def failures_recorded(session: Session, watchdog: Watchdog) -> Iterator[None]:
    """Wrap a run: record the failure of this rank in the run directory."""
    run_dir, world = session.run_dir, session.world

    def record(status: int, kind: str, message: str) -> None:
        record_failure(run_dir, world.rank, watchdog.step, status, kind, message)
        # May be another rank's; the root may end before it can report it.
        first = first_failure(run_dir, os.environ.get(ATTEMPT))
        session.record.end(FAILED, watchdog.step, reason=first.describe() if first else message)

    watchdog.report_to(lambda message, status: record(status, "Stalled", message), _advice(session.job))
    try:
        yield
    except SystemExit:
        raise
    except BaseException as error:
        known = error.status if isinstance(error, UserError) else ExitStatus.INTERNAL
        # A broken pipe means that the reader of the output, such as horovodrun, is gone.
        is_lost = is_peer_failure(error) or isinstance(error, BrokenPipeError)
        if world.is_root or not isinstance(error, CollectiveError):
            record(ExitStatus.PEER_LOST if is_lost else known, type(error).__name__, str(error))
        raise


def _advice(job: Job) -> str:
    """Return what to do if a GPU with persistent kernels does not answer; their blocks wait for each other."""
    if devices.gpu_of(job.model.ctx) is None or job.settings.recurrence != "persistent":
        return ""
    return "if it is the GPU, use --recurrence loop, which needs no kernel that waits"


def finish(session: Session, result: TrainingResult, stop: StopRequest) -> None:
    """Name the last checkpoint, draw the plot, and record the end of a run that was trained to its last epoch.

    Raises:
        CollectiveError: if training has diverged without a loss that is not finite.
    """
    checkpoints, step = CheckpointDir.of_run(session.run_dir), result.progress.step
    world, log, characters = session.world, session.log, len(session.job.text.vocabulary)
    session.record.begin_end()
    world.run_on_root(lambda: checkpoints.name_final(step), "final")
    reached = world.broadcast_object(log.last_perplexity(), "last_perplexity")
    diverged = has_diverged(reached, characters)
    error = (
        f"training has diverged: the perplexity of the last epoch, {reached:.4g}, is more than twice that of guessing "
        f"among the {characters:,} characters: start another run with a lower --learning-rate or --max-norm"
    )
    if diverged:
        log.note(f"error: {error}")
    _say_goodput(session)
    log.finish()
    if world.is_root:
        stop.remove_file()
    if diverged:
        raise CollectiveError(error, ExitStatus.DIVERGED)
    if world.is_root:
        session.record.end(FINISHED, step, epoch=result.progress.epoch)


def exit_stopped(session: Session, result: TrainingResult, stop: StopRequest) -> NoReturn:
    """Report the source of the stop request, and exit with the status for a run to be resumed."""
    world, run_dir, step = session.world, session.run_dir, result.progress.step
    session.record.begin_end()
    reasons = world.allgather_object(stop.reason, "reasons")
    rank = next((r for r, reason in enumerate(reasons) if reason), 0)
    command = resume_command(run_dir)
    if PLANNED in reasons[rank]:
        tell = session.log.note
    else:
        tell = session.log.say
        _say_goodput(session)
    tell(f"stopped by {reasons[rank]} on rank {rank} after step {step}; continue with {command}")
    if world.is_root:
        session.record.end(STOPPED, step, reason=reasons[rank], rank=rank)
        stop.remove_file()
    raise SystemExit(int(ExitStatus.STOPPED))


def _say_goodput(session: Session) -> None:
    """Show what the time of the run went to, unless it was short."""
    line = session.record.summary()
    if line:
        session.log.say(line)
