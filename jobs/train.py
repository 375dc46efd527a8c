#!/usr/bin/env python3
"""Train the hand-written LSTM with as many workers as the launcher starts. This file is wiring only.

python jobs/train.py                                one worker, no launcher
horovodrun -np 4 --gloo python jobs/train.py        four on this node; --mpi instead of --gloo sends over MPI
mpirun -np 4 python jobs/train.py                   four, wherever MPI puts them
"""

import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from lstm_dist.launcher import set_threads

set_threads()  # OpenMP reads its thread count when the lines below load MXNet

from lstm_dist import config, corpus, device, runlog, sampling  # noqa: E402
from lstm_dist.batches import ConsecutiveBatches, RandomBatches  # noqa: E402
from lstm_dist.checkpoint import load_checkpoint, save_checkpoint  # noqa: E402
from lstm_dist.errors import UserError, one_line_errors  # noqa: E402
from lstm_dist.exchange import World  # noqa: E402
from lstm_dist.model import CharLSTM, initial_parameters  # noqa: E402
from lstm_dist.trainer import Batches, Schedule, train  # noqa: E402

DOCUMENT_PREFIXES = ["分开", "不分开", "战争中部队"]


class Job(NamedTuple):
    """What is settled before the first step."""

    settings: config.RunConfig
    text: corpus.Corpus
    batches: Batches
    model: CharLSTM
    prefixes: List[str]


def prepare(argv: Optional[List[str]], world: World) -> Job:
    """Read the command line, the corpus and the first weights. Nothing is written yet."""
    settings = config.parse_config(argv)
    text = corpus.load_corpus(settings.corpus, settings.max_chars, settings.max_corpus_bytes)
    streams = settings.streams(world.size)
    where = (text.tokens, streams, settings.seq_len, world.rank, world.size)
    if settings.sampling == "random":
        batches: Batches = RandomBatches(*where, seed=settings.seed)
    else:
        batches = ConsecutiveBatches(*where)
    model = CharLSTM(len(text.vocabulary), settings.hidden_size, device.choose(settings.device, world.local_rank))
    if settings.init is None:
        model.load(initial_parameters(len(text.vocabulary), settings.hidden_size, settings.seed), "the initial weights")
    else:
        start = load_checkpoint(settings.init, "--init")
        if start.vocabulary not in (None, text.vocabulary):
            raise UserError(
                f"--init {settings.init}: was trained on other characters than --corpus has; use that corpus"
            )
        model.load(start.parameters, f"--init {settings.init}")
    return Job(settings, text, batches, model, choose_prefixes(settings.prefix, text))


def choose_prefixes(given: Optional[List[str]], text: corpus.Corpus) -> List[str]:
    """The given ones, or the document's, or the first lines' beginnings where the corpus lacks their characters."""
    if given:
        for prefix in given:
            missing = text.vocabulary.missing(prefix)
            if missing:
                raise UserError(
                    f"--prefix {prefix}: {missing!r} does not occur in {text.describe()}; use its characters"
                )
        return given
    if text.vocabulary.missing("".join(DOCUMENT_PREFIXES)):
        return [line[:5] for line in text.first_lines]
    return DOCUMENT_PREFIXES


def open_log(settings: config.RunConfig, world: World) -> Tuple[Path, runlog.RunLog]:
    """The root's run directory and the log that writes into it; everybody else writes nothing, nowhere."""
    if not world.is_root:
        return Path(), runlog.RunLog()
    run_dir = settings.run_dir or runlog.new_run_dir()
    return run_dir, runlog.RootLog(run_dir, settings.overwrite)


def make_schedule(job: Job, size: int) -> Schedule:
    """The loop's numbers; the one place where the number of workers enters the mathematics."""
    settings, streams = job.settings, job.settings.streams(size)
    return Schedule(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        max_norm=settings.max_norm,
        gradient_scale=size * settings.reference_batch_size / streams,
        wire_dtype=settings.wire_dtype,
        resets_every_window=settings.resets_every_window,
        chars_per_step=streams * settings.seq_len,
        log_every=settings.log_every,
    )


def introduce(
    log: runlog.RunLog, job: Job, schedule: Schedule, world: World, process: Dict[str, Any]
) -> Dict[str, Any]:
    """Write the run card and the first lines; returns the configuration as it was resolved."""
    settings, steps = job.settings, job.batches.steps_per_epoch
    streams = settings.streams(world.size)
    resolved = {
        **settings.to_json(),
        "global_batch_size": streams,
        "state_reset": "window" if settings.resets_every_window else "epoch",
        "prefix": job.prefixes,
    }
    mine = json.dumps(runlog.describe_rank(str(job.model.ctx)))
    ranks = [json.loads(text) for text in world.gather_text(mine, "ranks")]
    facts = {"workers": world.size, "controller": world.controller, "corpus": job.text.describe(), "ranks": ranks}
    log.start(resolved, {**process, **facts}, settings.epochs, steps * schedule.chars_per_step)
    log.say(f"corpus: {job.text.describe()}")
    log.say(
        f"{world.size} worker{'s' if world.size > 1 else ''} over {world.controller} on "
        f"{', '.join(sorted({rank['device'] for rank in ranks}))}, {job.model.parameters.flat.size:,} parameters, "
        f"{streams} {settings.sampling} streams of {settings.seq_len}, {steps} steps an epoch"
    )
    if settings.prefix is None and job.prefixes != DOCUMENT_PREFIXES:
        log.say("the corpus lacks characters of the document's prefixes: samples begin as its first lines do")
    return resolved


def main(argv: Optional[List[str]] = None) -> None:
    """One run, from the command line to perplexity.png."""
    process = runlog.describe_process()
    with World.open() as world:
        job = world.settle(lambda: prepare(argv, world), "prepare")
        world.require_equal(job.settings.fingerprint(), "configuration")
        world.require_equal(job.text.digest(), "corpus")
        run_dir, log = world.settle(lambda: open_log(job.settings, world), "run_dir")
        schedule = make_schedule(job, world.size)
        resolved = introduce(log, job, schedule, world, process)

        def write_samples(epoch: int) -> None:
            for prefix in job.prefixes if world.is_root else []:
                text = sampling.continue_text(job.model, job.text.vocabulary, prefix, job.settings.sample_length)
                log.sample(epoch, prefix, text)

        train(job.model, job.batches, world, schedule, log, write_samples)
        if world.is_root:
            weights = job.model.parameters.to_document()
            save_checkpoint(
                run_dir / "checkpoints" / "final.safetensors", weights, job.text.vocabulary, config=resolved
            )
        log.finish()


if __name__ == "__main__":
    with one_line_errors():
        main()
