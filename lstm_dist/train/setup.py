"""Setup of a job before its first step: configuration, text, batches and model, consistent on all ranks."""

import dataclasses
import socket
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import mxnet as mx
import numpy as np

from lstm_dist.cluster import devices
from lstm_dist.cluster.startup import AGREEING, PREPARING, Startup
from lstm_dist.comm.world import World
from lstm_dist.data import corpus
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches
from lstm_dist.data.token_file import Tokens
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.create import create_model
from lstm_dist.model.language_model import LanguageModel
from lstm_dist.model.parameters import initial_parameters, memory_needed
from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.pretrained import D2L_PREFIXES, find_checkpoint
from lstm_dist.train.config import RunConfig
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.exchange_plan import ExchangePlan
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.step import Schedule
from lstm_dist.train.text import load_text
from lstm_dist.train.trainer import Batches


class Job(NamedTuple):
    """Everything that is set up before the first step."""

    settings: RunConfig
    text: corpus.Corpus
    batches: Batches
    model: LanguageModel
    exchange: ExchangePlan
    prefixes: List[str]
    evaluator: Optional[Evaluator] = None

    def resolved(self, size: int) -> Dict[str, Any]:
        """Return every setting, resolved for `size` workers and this text."""
        return {**self.settings.resolved(size, self.prefixes), "corpus_sha256": self.text.digest}

    def describe(self, world: World, contexts: Sequence[str]) -> str:
        """Describe the workers, the model and the batches in one line."""
        streams, validation = self.settings.streams(world.size), ""
        workers = f"{world.size} workers over {world.controller}" if world.size > 1 else "1 worker"
        if self.evaluator:
            validation = f", {self.evaluator.chars + 1:,} characters for validation"
        kernels = f" ({self.model.arithmetic})" if devices.gpu_of(self.model.ctx) else ""
        return (
            f"{workers} on {', '.join(contexts)}{kernels}, "
            f"{self.model.weights.size:,} parameters, {streams} {self.settings.sampling} streams of "
            f"{self.settings.seq_len}, {self.batches.steps_per_epoch} steps an epoch{validation}"
        )


def set_up(settings: RunConfig, world: World, startup: Startup) -> Job:
    """Read the corpus, create the model and its initial weights, and cut the batches, without writing any file."""
    startup.enter(PREPARING)
    if settings.init is not None:  # the last checkpoint of a running job changes, so that its name is recorded
        settings = dataclasses.replace(settings, init=find_checkpoint(settings.init, "--init"))
    text = load_text(settings)
    cut = len(text.tokens) - int(settings.valid_fraction * len(text.tokens))
    exchange = _plan_exchange(text, cut, settings, world)
    batches = _make_batches(text.tokens, cut, settings, world, exchange.batch_vocab_size)
    model = _make_model(text, settings, batches, world)
    evaluator = make_evaluator(text, cut, settings, world) if settings.valid_fraction else None
    startup.enter(AGREEING)  # this worker waits for those that are still preparing
    return Job(settings, text, batches, model, exchange, choose_prefixes(settings.prefix, text), evaluator)


def _plan_exchange(text: corpus.Corpus, cut: int, settings: RunConfig, world: World) -> ExchangePlan:
    sizes = len(text.vocabulary), settings.hidden_size, settings.layers
    return ExchangePlan.choose(text.tokens[:cut], world.size, settings.streams(world.size), settings.seq_len, *sizes)


def _make_batches(tokens: Tokens, cut: int, settings: RunConfig, world: World, vocab_size: Optional[int]) -> Batches:
    """Return this worker's shard of the batch streams of the text before the cut; arguments as in ConsecutiveBatches.

    Raises:
        UserError: if it is too short; the message names --valid-fraction if that has made it so.
    """
    streams, length, training = settings.streams(world.size), settings.seq_len, tokens[:cut]
    try:
        if settings.sampling == "random":
            return RandomBatches(training, streams, length, world.rank, world.size, settings.seed, vocab_size)
        return ConsecutiveBatches(training, streams, length, world.rank, world.size, vocab_size)
    except UserError as error:
        if error.status != ExitStatus.BAD_DATA or cut == len(tokens):
            raise
        raise UserError(
            f"--valid-fraction {settings.valid_fraction:g}: leaves {cut:,} of {len(tokens):,} characters to train on; "
            f"{error}, or lower --valid-fraction",
            error.status,
        ) from None


def _make_model(text: corpus.Corpus, settings: RunConfig, batches: Batches, world: World) -> LanguageModel:
    """Return the model with the weights of --init or new ones; those of a resumed run are loaded later.

    Raises:
        UserError: if memory is too small, --recurrence is for GPUs only, or --init does not fit.
    """
    vocab_size = len(text.vocabulary)
    ctx = devices.choose(settings.device, world.local_rank)
    _require_recurrence(ctx, settings)
    _require_memory(ctx, settings, vocab_size, batches.rows.stop - batches.rows.start)
    model = create_model(vocab_size, settings.hidden_size, ctx, settings.layers, settings.recurrence)
    if settings.init is not None:
        given = load_checkpoint(settings.init, "--init")
        if given.vocabulary not in (None, text.vocabulary):
            raise UserError(
                f"--init {settings.init}: was trained on other characters than --corpus has; use that corpus",
                ExitStatus.BAD_CONFIG,
            )
        model.load(given.parameters, f"--init {settings.init}")
    elif not settings.resume:
        initial = initial_parameters(vocab_size, settings.hidden_size, settings.seed, settings.layers)
        model.load(initial, "the initial weights")
    return model


def make_evaluator(text: corpus.Corpus, cut: int, settings: RunConfig, world: World) -> Evaluator:
    """Return the evaluator of the validation set, the text after the cut.

    Raises:
        UserError: naming --valid-fraction, if the validation set is too short.
    """
    tokens = text.tokens[cut:]
    streams = max(world.size, min(settings.streams(world.size), len(tokens) - 1))
    try:
        return Evaluator(tokens, streams, settings.seq_len, world)
    except UserError as error:
        raise UserError(
            f"--valid-fraction {settings.valid_fraction:g}: {error}: use a larger fraction or a longer text",
            error.status,
        ) from None


def _require_recurrence(ctx: mx.Context, settings: RunConfig) -> None:
    """Check that --recurrence has an effect; a resumed run may continue on another device.

    Raises:
        UserError: if it was given for a CPU.
    """
    if devices.gpu_of(ctx) is None and settings.recurrence != "auto" and not settings.resume:
        raise UserError(
            f"--recurrence {settings.recurrence}: has an effect on a GPU only, and this worker computes on its CPU: "
            "leave it out, or use --device gpu",
            ExitStatus.BAD_CONFIG,
        )


def _require_memory(ctx: mx.Context, settings: RunConfig, vocab_size: int, streams: int) -> None:
    """Check, before any allocation, that the model fits a worker's share of memory.

    Raises:
        UserError: naming the required memory, if it does not.
    """
    needed = worker_memory(ctx, settings, vocab_size, streams)
    limit = devices.memory(ctx)
    if needed > limit:
        raise UserError(
            f"--hidden-size {settings.hidden_size}, --layers {settings.layers}: with {streams} streams of "
            f"{settings.seq_len} and {vocab_size:,} characters a worker needs {needed / 2**30:.1f} GiB of memory, "
            f"{socket.gethostname()} has {limit / 2**30:.1f} for it: take a smaller model, batch or --seq-len",
            ExitStatus.BAD_CONFIG,
        )


def worker_memory(ctx: mx.Context, settings: RunConfig, vocab_size: int, streams: int) -> int:
    """Return a lower bound on the bytes of memory of a worker with this number of streams; see `memory_needed`."""
    sizes = vocab_size, settings.hidden_size, settings.layers
    return memory_needed(*sizes, streams, settings.seq_len, devices.gpu_of(ctx) is not None)


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
    if text.vocabulary.missing("".join(D2L_PREFIXES)):
        begins = [line[:5] for line in text.first_lines if not text.vocabulary.missing(line[:5])]
        return list(dict.fromkeys(begins)) or [text.vocabulary.decode(np.asarray(text.tokens[:5]))]
    return list(D2L_PREFIXES)


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
        every=settings.every,
        until_perplexity=settings.until_perplexity or 0.0,
        time_every=settings.time_every,
    )
