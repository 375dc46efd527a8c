"""Train the hand-written LSTM with as many workers as the launcher starts. This file is wiring only.

python jobs/train.py                                one worker, no launcher
horovodrun -np 4 --gloo python jobs/train.py        four on this node; --mpi instead of --gloo sends over MPI
mpirun -np 4 python jobs/train.py                   four, wherever MPI puts them
"""

import json
import os
import time
from pathlib import Path
from typing import IO, Any, Dict, List, NamedTuple, Optional

from lstm_dist.cluster import devices, provenance
from lstm_dist.cluster.cpu_affinity import Affinity, describe_pinning
from lstm_dist.cluster.startup import CONFIGURING, CONNECTING, OPENING, Startup
from lstm_dist.comm.horovod_group import World
from lstm_dist.model import generate
from lstm_dist.run import (
    run_log,
    status,
)
from lstm_dist.run.checkpoint_dir import Store
from lstm_dist.run.run_dir import choose_run_dir
from lstm_dist.run.stop_request import Stop
from lstm_dist.run.watchdog import STARTING, Watchdog
from lstm_dist.train.config import parse_config, require_same_run
from lstm_dist.train.hooks import Keeper, leave_stopped, recorded
from lstm_dist.train.resume import Past, find_past, go_back
from lstm_dist.train.setup import (
    DOCUMENT_PREFIXES,
    Job,
    inspect_place,
    make_schedule,
    prepare,
    require_agreement,
)
from lstm_dist.train.trainer import NotFiniteError, Progress, Schedule, Trainer


class Place(NamedTuple):
    """Where the root writes: the log of the others does nothing."""

    run_dir: Path
    log: run_log.RunLog


def open_place(job: Job, past: Optional[Past], lock: Optional[IO[str]], world: World) -> Place:
    """The run directory, and for the root its lock and the log that writes into it."""
    anew = job.settings.overwrite or job.settings.auto_resume
    given = world.settle_root(lambda: choose_run_dir(job.settings.run_dir), "run_dir")
    run_dir = Path(world.share_text(str(given.resolve()) if given else "", "place"))
    warnings = inspect_place(job, given or run_dir, world)
    epochs = past.progress.epoch if past else None
    how = (anew, epochs, lock, job.settings.tensorboard)
    log = world.settle_root(lambda: run_log.RootLog(given or run_dir, *how), "log") or run_log.RunLog()
    if world.is_root:
        Store(run_dir / "checkpoints").clean()
    for line in warnings:
        log.say(line)
    return Place(given or run_dir, log)


def introduce(
    log: run_log.RunLog,
    job: Job,
    schedule: Schedule,
    past: Optional[Past],
    world: World,
    process: Dict[str, Any],
    affinity: Affinity,
) -> Dict[str, Any]:
    """Write the run card and the first lines; returns the facts that go into every checkpoint."""
    settings, steps, resolved = job.settings, job.batches.steps_per_epoch, job.resolved(world.size)
    mine = provenance.describe_rank(str(job.model.ctx), devices.identity(job.model.ctx))
    mine.update(cores=sorted(affinity.share or affinity.allowed), pinning=affinity.describe())
    ranks = [json.loads(text) for text in world.gather_text(json.dumps(mine), "ranks")]
    facts = {"workers": world.size, "controller": world.controller, "corpus": job.text.describe(), "ranks": ranks}
    done = (past.progress.step if past else 0) * schedule.chars_per_step
    log.start(resolved, {**process, **facts}, settings.epochs, steps * schedule.chars_per_step, done)
    if os.geteuid() == 0:
        log.say("warning: running as root: what is written is root's; a user of your own is safer")
    log.say(f"corpus: {job.text.describe()}")
    log.say(job.describe(world, sorted({rank["device"] for rank in ranks})))
    if world.size > 1:
        log.say(describe_pinning([rank["pinning"] for rank in ranks]))
    if settings.prefix is None and job.prefixes != DOCUMENT_PREFIXES:
        log.say("the corpus lacks characters of the document's prefixes: samples begin as its first lines do")
    here = {"workers": world.size, "controller": world.controller, "threads": ranks[0]["threads"]}
    for line in [*past.warnings, past.describe(here, settings.epochs)] if past else []:
        log.say(line)
    return {"config": resolved, "seed": settings.seed, "versions": process["versions"], **here}


def train(
    job: Job,
    past: Optional[Past],
    place: Place,
    world: World,
    keeper: Keeper,
    process: Dict[str, Any],
    affinity: Affinity,
) -> bool:
    """From the first step to the last; whether it was stopped on the way."""
    schedule = make_schedule(job, world.size)
    keeper.facts = introduce(place.log, job, schedule, past, world, process, affinity)
    state, progress = (past.restore(job, world), past.progress) if past else (None, Progress())
    trainer = Trainer(job.model, job.batches, world, schedule, place.log, keeper, progress, state, job.held_out)
    try:
        return trainer.run()
    except NotFiniteError as error:
        go_back(trainer, error, job, place.run_dir, place.log, world)


def main(startup: Startup, affinity: Affinity, argv: Optional[List[str]] = None) -> None:
    """Train from the command line to perplexity.png.

    Args:
        startup: the start of this worker, which ends here.
        affinity: the cores of this worker.
        argv: the command line, by default this program's.
    """
    began = time.monotonic()
    os.umask(0o077)  # what somebody trains on is nobody else's business
    process = provenance.describe_process()
    startup.enter(CONNECTING)
    with Stop() as stop, Watchdog() as watchdog, World.open() as world:
        startup.enter(CONFIGURING)
        settings = world.settle(lambda: parse_config(argv), "configuration")
        how = {"resume": str(settings.resume), "auto_resume": str(settings.auto_resume)}
        world.require_equal(how, "start")
        past, lock = find_past(settings, world)
        if past is not None:
            settings = world.settle(lambda: past.parse_config(argv), "configuration")
        watchdog.limit = max(STARTING, settings.stall_timeout)
        watchdog.beat("start")
        job = world.settle(lambda: prepare(settings, world, startup), "prepare")
        require_agreement(job, world, {**process["versions"], "python": process["python"]})
        if past is not None:
            world.settle(lambda: require_same_run(past.facts["config"], job.resolved(world.size)), "same_run")
        startup.enter(OPENING)
        place = open_place(job, past, lock, world)

        def write_samples(epoch: int) -> None:
            for prefix in job.prefixes if world.is_root else []:
                text = generate.continue_text(job.model, job.text.vocabulary, prefix, settings.sample_length)
                place.log.sample(epoch, prefix, text)

        watchdog.limit = settings.stall_timeout
        watchdog.beat("start", past.progress.step if past else 0)
        if world.is_root:
            stop.watch(place.run_dir, settings.deadline(began))
        startup.finish()
        with recorded(place.run_dir, world, watchdog):
            keeper = Keeper(world, job.model, job.text.vocabulary, place.run_dir, place.log, stop, watchdog)
            keeper.samples, keeper.every = write_samples, settings.checkpoint_seconds
            if train(job, past, place, world, keeper, process, affinity):
                leave_stopped(place.run_dir, world, place.log, stop, watchdog.step)
            place.log.finish()
            if world.is_root:
                stop.forget()
                epoch = watchdog.step // job.batches.steps_per_epoch
                status.write_status(place.run_dir, "finished", step=watchdog.step, epoch=epoch)
