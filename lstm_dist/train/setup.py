"""Setup of a job before its first step: configuration, text, batches and model, consistent on all ranks."""

import json
import os
import socket
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence

import mxnet as mx
import numpy as np

from lstm_dist.cluster import cpu_affinity, devices, provenance
from lstm_dist.cluster.startup import AGREEING, PREPARING, Startup
from lstm_dist.comm.horovod_group import World
from lstm_dist.comm.process_group import SettledError
from lstm_dist.data import corpus, token_dataset
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.parameters import initial_parameters, memory_needed
from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.run_dir import is_seen, leave_mark, remove_mark
from lstm_dist.train.config import RunConfig
from lstm_dist.train.evaluator import Scorer
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.trainer import Batches, Schedule

DOCUMENT_PREFIXES = ["分开", "不分开", "战争中部队"]


class Job(NamedTuple):
    """Everything that is set up before the first step."""

    settings: RunConfig
    text: corpus.Corpus
    batches: Batches
    model: CharLSTM
    prefixes: List[str]
    held_out: Optional[Scorer] = None

    def resolved(self, size: int) -> Dict[str, Any]:
        """Return every setting, resolved for `size` workers and this text."""
        return {**self.settings.resolved(size, self.prefixes), "corpus_sha256": self.text.digest}

    def describe(self, world: World, devices: Sequence[str]) -> str:
        """Describe the workers, the model and the batches in one line."""
        streams, held_out = self.settings.streams(world.size), ""
        if self.held_out:
            held_out = f", {self.held_out.chars + 1:,} characters held out"
        return (
            f"{world.size} worker{'s' if world.size > 1 else ''} over {world.controller} on {', '.join(devices)}, "
            f"{self.model.parameters.flat.size:,} parameters, {streams} {self.settings.sampling} streams of "
            f"{self.settings.seq_len}, {self.batches.steps_per_epoch} steps an epoch{held_out}"
        )


def prepare(settings: RunConfig, world: World, startup: Startup) -> Job:
    """Read the corpus and create the initial weights, without writing any file."""
    startup.enter(PREPARING)
    text = token_dataset.load(settings.corpus, settings.kept_chars, settings.max_corpus_bytes)
    streams = settings.streams(world.size)
    cut = len(text.tokens) - int(settings.valid_fraction * len(text.tokens))
    where = (text.tokens[:cut], streams, settings.seq_len, world.rank, world.size)
    if settings.sampling == "random":
        batches: Batches = RandomBatches(*where, seed=settings.seed)
    else:
        batches = ConsecutiveBatches(*where)
    ctx = devices.choose(settings.device, world.local_rank)
    _require_memory(ctx, settings, len(text.vocabulary), batches.rows.stop - batches.rows.start)
    model = CharLSTM(len(text.vocabulary), settings.hidden_size, ctx, settings.layers)
    if settings.init is not None:
        start = load_checkpoint(settings.init, "--init")
        if start.vocabulary not in (None, text.vocabulary):
            raise UserError(
                f"--init {settings.init}: was trained on other characters than --corpus has; use that corpus",
                ExitStatus.BAD_CONFIG,
            )
        model.load(start.parameters, f"--init {settings.init}")
    elif not settings.resume:
        sizes = (len(text.vocabulary), settings.hidden_size, settings.seed, settings.layers)
        model.load(initial_parameters(*sizes), "the initial weights")
    held_out = hold_out(text, cut, settings, world) if settings.valid_fraction else None
    startup.enter(AGREEING)  # this worker waits for those that are still preparing
    return Job(settings, text, batches, model, choose_prefixes(settings.prefix, text), held_out)


def hold_out(text: corpus.Corpus, cut: int, settings: RunConfig, world: World) -> Scorer:
    """Return the scorer of the validation set, the text after the cut.

    Raises:
        UserError: naming --valid-fraction, if the validation set is too short.
    """
    tokens = text.tokens[cut:]
    streams = max(world.size, min(settings.streams(world.size), len(tokens) - 1))
    try:
        return Scorer(tokens, streams, settings.seq_len, world)
    except UserError as error:
        said = f"--valid-fraction {settings.valid_fraction:g}: {error}: hold more out, or give a longer text"
        raise UserError(said, error.status) from None


def _require_memory(ctx: mx.Context, settings: RunConfig, vocab_size: int, streams: int) -> None:
    """Check, before any allocation, that the model fits a worker's share of memory.

    Raises:
        UserError: naming the required memory, if it does not.
    """
    needed = memory_needed(vocab_size, settings.hidden_size, settings.layers, streams, settings.seq_len)
    limit = devices.memory(ctx)
    if needed > limit:
        raise UserError(
            f"--hidden-size {settings.hidden_size}, --layers {settings.layers}: with {streams} streams of "
            f"{settings.seq_len} and {vocab_size:,} characters a worker needs {needed / 2**30:.1f} GiB of memory, "
            f"{socket.gethostname()} has {limit / 2**30:.1f} for it: take a smaller model, batch or --seq-len",
            ExitStatus.BAD_CONFIG,
        )


def choose_prefixes(given: Optional[List[str]], text: corpus.Corpus) -> List[str]:
    """Return the given prefixes, else the D2L chapter's, else (if characters are missing) the first lines' starts."""
    if given:
        for prefix in given:
            missing = text.vocabulary.missing(prefix)
            if missing:
                raise UserError(
                    f"--prefix {prefix}: {missing!r} does not occur in {text.describe()}; use its characters"
                )
        return given
    if text.vocabulary.missing("".join(DOCUMENT_PREFIXES)):
        begins = [line[:5] for line in text.first_lines if not text.vocabulary.missing(line[:5])]
        return begins or [text.vocabulary.decode(np.asarray(text.tokens[:5]))]
    return DOCUMENT_PREFIXES


def require_agreement(job: Job, world: World, versions: Mapping[str, str]) -> None:
    """Check that every rank has the same configuration, text and program.

    Raises:
        SettledError: naming the ranks and the differences.
    """
    same = {
        "corpus": job.text.digest,
        "vocabulary": job.text.vocabulary.characters,
        "code": provenance.code_digest(Path(sys.argv[0])),
        "device": job.model.ctx.device_type,
        "NCCL": str(world.has_nccl),
    }
    if job.model.ctx.device_type == "cpu":  # the thread count changes summation order, and thus weights
        same["OMP_NUM_THREADS"] = str(cpu_affinity.openmp_threads())
    world.require_equal({**job.settings.facts(), **same, **versions}, "start")


def inspect_place(job: Job, run_dir: Path, world: World) -> List[str]:
    """Check devices and run directory on all workers, and return warnings.

    Raises:
        SettledError: if the job cannot run with them.
    """
    return [*filter(None, (_inspect_gpus(job.model.ctx, world), _inspect_run_dir(run_dir, world)))]


def _inspect_gpus(ctx: mx.Context, world: World) -> str:
    """Check that every worker has its own GPU.

    With NCCL sharing is an error, because NCCL refuses it with an unhelpful message.

    Returns:
        A warning if workers share a GPU, else an empty string.
    """
    mine = json.dumps([socket.gethostname(), devices.identity(ctx)])
    users: Dict[str, List[str]] = defaultdict(list)
    for rank, text in enumerate(world.gather_text(mine, "gpus")):
        users[text].append(str(rank))
    for text, ranks in users.items():
        host, gpu = json.loads(text)
        if gpu and len(ranks) > 1:
            said = f"ranks {' and '.join(ranks)} on {host} compute on one GPU, {gpu}"
            if world.has_nccl:
                raise SettledError(f"{said}: start as many workers on a host as it has GPUs", ExitStatus.BAD_CONFIG)
            return f"warning: {said}: each has a share of its speed"
    return ""


def _inspect_run_dir(run_dir: Path, world: World) -> str:
    """Check that every host sees the run directory; otherwise the causes of failures there are lost.

    Under Slurm an invisible directory is an error, because the job may be resumed on any host.

    Returns:
        A warning if some hosts do not see it, else an empty string.
    """
    if world.is_one_host:
        return ""
    left = world.settle_root(lambda: leave_mark(run_dir), "mark")
    mark = world.share_text(str(left.path) if left else "", "mark_name")
    blind = "" if is_seen(Path(mark)) else socket.gethostname()
    hosts = sorted(set(filter(None, world.gather_text(blind, "seen"))))
    if left:
        remove_mark(left)
    if not hosts:
        return ""
    said = f"--run-dir {run_dir}: {', '.join(hosts)} cannot see it: give a folder on a file system that all nodes share"
    if world.share_text(os.environ.get("SLURM_JOB_ID", ""), "slurm"):
        raise SettledError(said, ExitStatus.CANNOT_CREATE)
    return (
        f"warning: {said}; until then, what goes wrong there is not in errors/, and --resume needs the same first host"
    )


def make_schedule(job: Job, size: int) -> Schedule:
    """Return the parameters of the training loop; the only place where N, the number of workers, affects the math."""
    settings, streams = job.settings, job.settings.streams(size)
    return Schedule(
        epochs=settings.epochs,
        learning_rate=LearningRate(
            settings.learning_rate,
            settings.learning_rate_schedule,
            settings.warm_up_steps,
            (settings.decay_epochs or settings.epochs) * job.batches.steps_per_epoch,
            settings.decay_factor,
        ),
        max_norm=settings.max_norm,
        gradient_scale=size * settings.reference_batch_size / streams,
        wire_dtype=settings.wire_dtype,
        resets_every_window=settings.resets_every_window,
        chars_per_step=streams * settings.seq_len,
        log_every=settings.log_every,
        checkpoint_epochs=settings.checkpoint_epochs,
        until_perplexity=settings.until_perplexity or 0.0,
        time_every=settings.time_every,
        eval_every=settings.eval_every,
    )
