"""Train the hand-written LSTM with as many workers as the launcher starts.

python jobs/train.py                                one worker, no launcher
horovodrun -np 4 --gloo python jobs/train.py        four on this node; --mpi instead of --gloo sends over MPI
mpirun -np 4 python jobs/train.py                   four, wherever MPI puts them
"""

import os
import time
from typing import IO, Any, List, Mapping, NamedTuple, Optional

from lstm_dist.cluster import provenance
from lstm_dist.cluster.cpu_affinity import Affinity
from lstm_dist.cluster.start_signals import EndOnSignal
from lstm_dist.cluster.startup import CONFIGURING, CONNECTING, OPENING, Startup
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.world import World
from lstm_dist.errors import printable
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import STARTING, Watchdog
from lstm_dist.train.callbacks import BEGINNING, Callbacks
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.config import RunConfig
from lstm_dist.train.dry_run import describe_dry_run
from lstm_dist.train.preflight import require_agreement
from lstm_dist.train.resume import PreviousRun, checkpoint_last_finite_step, find_previous
from lstm_dist.train.run_callbacks import RunCallbacks
from lstm_dist.train.same_run import require_same_run
from lstm_dist.train.session import Session, exit_stopped, failures_recorded, finish, log_start, open_session
from lstm_dist.train.setup import Job, make_schedule, set_up
from lstm_dist.train.step import NotFiniteError
from lstm_dist.train.trainer import Trainer, TrainingResult


class Request(NamedTuple):
    """What the command line asks for, on every rank.

    Attributes:
        settings: of the run; those of a resumed run are complete.
        previous: the part of the run that is resumed; None for a new run.
        lock: the root's lock on the directory of a resumed run.
    """

    settings: RunConfig
    previous: Optional[PreviousRun]
    lock: Optional[IO[str]]


def join() -> World:
    """Join the other workers; until they are connected, a signal ends this one."""
    with EndOnSignal():
        return HorovodWorld.open()


def read_request(argv: Optional[List[str]], world: World) -> Request:
    """Parse the command line, and load the checkpoint of a run to resume."""
    settings = world.run_on_all(lambda: parse_config(argv), "configuration")
    world.require_equal({name: str(getattr(settings, name)) for name in ("resume", "auto_resume", "dry_run")}, "start")
    previous, lock = find_previous(settings, world)
    if previous is not None:
        settings = world.run_on_all(lambda: previous.parse_config(argv), "configuration")
    return Request(settings, previous, lock)


def prepare(request: Request, world: World, startup: Startup, process: Mapping[str, Any]) -> Job:
    """Set up the job, and check that all ranks have the same one."""
    job = world.run_on_all(lambda: set_up(request.settings, world, startup), "set_up")
    require_agreement(job, world, {**process["versions"], "python": process["python"], "code": process["code"]})
    previous = request.previous
    if previous is not None:
        world.run_on_all(lambda: require_same_run(previous.facts["config"], job.resolved(world.size)), "same_run")
    return job


def show_dry_run(
    job: Job, request: Request, world: World, startup: Startup, process: Mapping[str, Any], affinity: Affinity
) -> None:
    """Show on the root what the job would do."""
    lines = describe_dry_run(job, request.previous, world, process, affinity)
    startup.finish()
    for line in lines:
        startup.report(printable(line))


def train(session: Session, callbacks: Callbacks) -> TrainingResult:
    """Train from the first step, or from where the run is resumed, to the last step or a stop request."""
    job, previous, world = session.job, session.previous, session.world
    state, progress = (previous.restore(job, world), previous.progress) if previous else (None, BEGINNING)
    schedule = make_schedule(job, world.size)
    trainer = Trainer(job.model, job.batches, world, schedule, session.log, callbacks, progress, state, job.evaluator)
    try:
        return trainer.run()
    except NotFiniteError as error:
        checkpoint_last_finite_step(trainer, error, job, session.run_dir, session.log, world)


def main(startup: Startup, affinity: Affinity, argv: Optional[List[str]] = None) -> None:
    """Train from the command line to perplexity.png.

    Args:
        startup: the start of this worker, which ends here.
        affinity: the cores of this worker.
        argv: the command line, by default this program's.
    """
    began = time.monotonic()
    os.umask(0o077)  # a run is private to its user
    with EndOnSignal():
        process = provenance.describe_process()
    startup.enter(CONNECTING)
    with StopRequest() as stop, Watchdog() as watchdog, join() as world:
        with EndOnSignal():
            startup.enter(CONFIGURING)
            request = read_request(argv, world)
            watchdog.allow(max(STARTING, request.settings.stall_timeout))
            job = prepare(request, world, startup, process)
            if request.settings.dry_run:
                show_dry_run(job, request, world, startup, process, affinity)
                return
        startup.enter(OPENING)  # from here on there is something to stop with a checkpoint
        session = open_session(job, request.previous, request.lock, world)
        watchdog.allow(request.settings.stall_timeout, session.first_step)
        if world.is_root:
            stop.watch(session.run_dir, request.settings.deadline(began))
        startup.finish()
        with failures_recorded(session, watchdog):
            facts = log_start(session, process, affinity)
            result = train(session, RunCallbacks(session, facts, stop, watchdog))
            if result.was_stopped:
                exit_stopped(session, result, stop)
            finish(session, result, stop)
