"""What `--dry-run` shows: a job as its workers have resolved it before the first step. Nothing is written or locked."""

from collections import defaultdict
from itertools import islice
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Set, Tuple

import numpy as np

from lstm_dist.cluster import devices
from lstm_dist.cluster.cpu_affinity import Affinity, cores_text, ranges_text
from lstm_dist.comm.world import World
from lstm_dist.model.exchange_size import exchanged_numbers
from lstm_dist.run.run_dir import require_writable
from lstm_dist.run.run_log import existing_files
from lstm_dist.run.tensorboard import require_writer
from lstm_dist.train.callbacks import BEGINNING, Progress
from lstm_dist.train.config import RunConfig
from lstm_dist.train.preflight import inspect_gpus
from lstm_dist.train.resume import PreviousRun
from lstm_dist.train.setup import Job, worker_memory
from lstm_dist.train.start_record import Start

_COUNTED = 32  # steps whose bytes are counted

Row = Tuple[str, str]


class Share(NamedTuple):
    """The part of a worker in a job.

    Attributes:
        streams: number of its streams.
        needed, available: bytes of memory, at least, and at most.
    """

    streams: int
    needed: int
    available: int

    @classmethod
    def of(cls, job: Job) -> "Share":
        """Return the share of this worker."""
        rows, ctx = job.batches.rows, job.model.ctx
        streams = rows.stop - rows.start
        needed = worker_memory(ctx, job.settings, len(job.text.vocabulary), streams)
        return cls(streams, needed, devices.memory(ctx))


def describe_dry_run(
    job: Job, previous: Optional[PreviousRun], world: World, process: Mapping[str, Any], affinity: Affinity
) -> List[str]:
    """Return the lines that `--dry-run` shows; all ranks call it together.

    Args:
        job: what would be trained.
        previous: the part of the run that would be resumed; None for a new run.
        world: all workers.
        process: from `provenance.describe_process`.
        affinity: the cores of this worker.

    Raises:
        CollectiveError: if the run directory cannot be used.
    """
    world.run_on_root(lambda: require_output(job.settings, previous is not None), "run_dir")
    warning = inspect_gpus(job.model.ctx, world)
    start = Start.gather(job, world, process, affinity)
    shares = [Share(*share) for share in world.allgather_object(Share.of(job), "shares")]
    if not world.is_root:
        return []
    progress = previous.progress if previous else BEGINNING
    rows = [*_job_rows(job, progress, shares), _workers_row(world), *_host_rows(start, shares)]
    rows.append(("output", _output(job.settings, previous)))
    width = max(len(name) for name, _ in rows)
    table = [f"  {name:<{width}}  {text}" for name, text in rows]
    said = previous.lines(start.rounding, start.software, job.settings.epochs) if previous else []
    return ["dry run: the job would start as follows", *table, *filter(None, [warning]), *start.notes(), *said]


def require_output(settings: RunConfig, is_resumed: bool) -> None:
    """Check that a start could write its output, without writing anything.

    Raises:
        UserError: naming --run-dir or --tensorboard, if not.
    """
    if settings.tensorboard:
        require_writer()
    run_dir = settings.run_dir or Path("runs")
    if settings.run_dir is not None and not is_resumed:
        existing_files(run_dir, settings.overwrite or settings.auto_resume)
    require_writable(run_dir)


def step_bytes(job: Job, progress: Progress) -> List[int]:
    """Return the bytes that each worker sends in the next steps of an epoch, for some of its first ones."""
    plan = job.exchange
    windows = islice(job.batches.epoch(progress.epoch + 1, progress.position), _COUNTED)
    numbers = [
        exchanged_numbers(
            plan.vocab_size,
            plan.hidden_size,
            plan.layers,
            None if window.characters is None else len(window.characters),
        )
        for window in windows
    ]
    return [number * np.dtype(job.settings.wire_dtype).itemsize for number in numbers]


def _job_rows(job: Job, progress: Progress, shares: Sequence[Share]) -> List[Row]:
    settings, plan, steps = job.settings, job.exchange, job.batches.steps_per_epoch
    streams = sum(share.streams for share in shares)
    done = f", {progress.step:,} of them are done" if progress.step else ""
    rows = [
        ("text", job.text.describe()),
        ("streams", f"{streams} {settings.sampling}, {settings.seq_len} characters of each a step"),
        ("steps", f"{steps:,} an epoch, {steps * settings.epochs:,} in {settings.epochs:,} epochs{done}"),
    ]
    if job.evaluator:
        rows.append(("validation", f"{job.evaluator.chars + 1:,} characters"))
    layers = f"{settings.layers} layer{'s' if settings.layers > 1 else ''} of {settings.hidden_size}"
    rows.append(("model", f"{job.model.weights.size:,} parameters, {layers}"))
    rows.append(("gradients", _gradients(step_bytes(job, progress), plan.uses_rows, settings.wire_dtype)))
    needed, available = max(share.needed for share in shares), min(share.available for share in shares)
    rows.append(("memory", f"at least {_size(needed)} for the arrays of a worker, which may use {_size(available)}"))
    return rows


def _gradients(counts: Sequence[int], uses_rows: bool, wire_dtype: str) -> str:
    """Describe the bytes of the gradients that each worker exchanges or, if it is alone, uses."""
    if not counts:
        return "no step of this epoch is left"
    low, high = min(counts), max(counts)
    size = f"{low:,}" if low == high else f"{low:,} to {high:,}"
    what = (
        f"of W_x only the rows of a batch's characters ({len(counts)} steps counted)"
        if uses_rows
        else "of all parameters"
    )
    return f"{size} bytes a step as {wire_dtype}, {what}"


def _workers_row(world: World) -> Row:
    return ("workers", f"{world.size} over {world.controller}" if world.size > 1 else "1")


def _host_rows(start: Start, shares: Sequence[Share]) -> List[Row]:
    """Describe the workers of each host, their devices in the order of their ranks."""
    of_host: Dict[str, List[int]] = defaultdict(list)
    for rank, facts in enumerate(start.ranks):
        of_host[facts["host"]].append(rank)
    rows = []
    for host, numbers in of_host.items():
        ranks = [start.ranks[number] for number in numbers]
        found = [f"{rank['device']}{' ' + rank['gpu'] if rank['gpu'] else ''}" for rank in ranks]
        cores = cores_text(frozenset(core for rank in ranks for core in rank["cores"]))
        streams = _counted({shares[number].streams for number in numbers}, "stream")
        threads = _counted({rank["threads"] for rank in ranks}, "thread")
        name, each = (f"  ranks {ranges_text(numbers)}", " each") if len(numbers) > 1 else (f"  rank {numbers[0]}", "")
        rows.append((name, f"{host}: {', '.join(dict.fromkeys(found))}; {streams} and {threads}{each}; {cores}"))
    return rows


def _counted(numbers: Set[int], noun: str) -> str:
    return f"{ranges_text(numbers)} {noun}{'' if numbers == {1} else 's'}"


def _output(settings: RunConfig, previous: Optional[PreviousRun]) -> str:
    """Describe what would be written where, and what would be deleted there."""
    if settings.run_dir is None:
        return "a new folder in runs/; nothing is written now"
    if previous is not None:
        what = f", continued after step {previous.progress.step:,}"
    else:
        what = ", in place of the run that it holds" if existing_files(settings.run_dir, overwrite=True) else ""
    return f"{settings.run_dir}{what}; nothing is written now"


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"
