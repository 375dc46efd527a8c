"""Benchmark the training step against other implementations of the same step, measured in turns on this machine.

python jobs/bench.py                 this project ("ours"), the LSTMs of MXNet and PyTorch, and only the matrix products
python jobs/bench.py --workers 2     weak scaling (32 streams per worker) and strong scaling (32 streams in total)
python jobs/bench.py --sizes         time per character at other sizes of batch and model
python jobs/bench.py --gpu           this project on the first GPU, with each --recurrence of jobs/train.py
python jobs/bench.py --guards        cost of the checks that jobs/train.py makes in every step
python jobs/bench.py --profile       time of each operator in this project's step
python jobs/bench.py --prepare 1000  preparation of 1000 MB of text, compared with a loop over its characters
python jobs/bench.py --large 1000    training on 1000 MB of prepared text, compared with the packaged songs

Every implementation runs in processes of its own, one per worker. Before the measurements, all that train compute the
loss and gradients of the same window from the same weights, and these must agree. The implementations in PyTorch are
left out unless torch is installed: pip install -e '.[bench]'.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import List, Optional, Sequence, Tuple

from tqdm import tqdm

from lstm_dist.bench import large_corpus, plot, prepare, registry, table
from lstm_dist.bench.case import Case
from lstm_dist.bench.interleaved import Timing, measure_in_turns, start_pools
from lstm_dist.bench.worker_pool import Entry
from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.devices import visible_gpus
from lstm_dist.cluster.processor import this_processor
from lstm_dist.errors import UserError

SIZES = {"hidden_size": (512, 1024), "vocab_size": (10_000,), "streams": (128,), "seq_len": (128,)}  # of --sizes
ONLY = (
    f"measure only these implementations, from: {', '.join(registry.ON_ONE_WORKER)}; "
    f"with --gpu, from: {', '.join(registry.ON_GPU)}"
)
UNUSED = {  # options without effect on a benchmark
    "sizes": ("seconds",),
    "gpu": ("seconds",),
    "guards": ("seconds", "only"),
    "profile": ("seconds", "only", "turns", "json"),
    "prepare": ("seconds", "only", "threads", "json", "streams", "seq_len", "hidden_size", "vocab_size"),
    "large": ("only", "json", "vocab_size"),
}


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Parse the command line.

    Raises:
        UserError: if a value is out of range, a folder is missing, or flags contradict each other.
    """
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/bench.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    _add_benchmarks(parser)
    _add_options(parser)
    args = parser.parse(argv)
    for name, value in vars(args).items():
        if isinstance(value, int) and value < 1 and not isinstance(value, bool):
            raise UserError(f"--{name.replace('_', '-')} {value}: should be at least 1")
    if args.workers > args.streams:
        raise UserError(
            f"--workers {args.workers}: more than --streams {args.streams}, but every worker needs a stream; "
            "use fewer workers or more streams"
        )
    for flag, path in (("--json", args.json), ("--picture", args.picture)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{flag} {path}: the folder {path.parent} does not exist; create it first")
    if args.gpu:
        _require_gpu()
    if args.picture is not None and not args.sizes:
        raise UserError("--picture: plots the result of --sizes; add --sizes")
    benchmark = next((name for name in UNUSED if getattr(args, name)), "")
    for name in UNUSED.get(benchmark, ("seconds",)):
        value = getattr(args, name)
        if value != parser.get_default(name):
            where = f"with --{benchmark}" if benchmark else "without --large"
            raise UserError(f"--{name.replace('_', '-')} {value}: has no effect {where}; leave it out")
    return args


def _require_gpu() -> None:
    import mxnet as mx  # here, because only the workers of a benchmark compute

    if not (mx.runtime.Features().is_enabled("CUDA") and visible_gpus()):
        raise UserError("--gpu: MXNet finds no GPU here: launch/doctor.py says why; leave it out to measure on the CPU")


def _add_benchmarks(parser: argparse.ArgumentParser) -> None:
    """Add the flags that select one benchmark."""
    add = parser.add_mutually_exclusive_group().add_argument
    add(
        "--workers",
        type=int,
        default=1,
        metavar="N",
        help="measure weak and strong scaling from one worker to N (default 1: compare the implementations)",
    )
    add("--sizes", action="store_true", help="measure the time per character at other sizes of batch and model")
    add(
        "--gpu",
        action="store_true",
        help="measure this project on the first GPU that MXNet finds, with each recurrence; --only selects one",
    )
    add(
        "--guards",
        action="store_true",
        help="measure this project's step with and without the checks of jobs/train.py (signals, stop file, time "
        "limit, watchdog), and with profiling of its parts (--time-every 1)",
    )
    add("--profile", action="store_true", help="profile the operators of this project's step with MXNet's profiler")
    add("--prepare", type=int, metavar="MB", help="measure the preparation of MB megabytes of text (jobs/prepare.py)")
    add("--large", type=int, metavar="MB", help="measure training on MB megabytes of prepared text (jobs/train.py)")


def _add_options(parser: argparse.ArgumentParser) -> None:
    """Add the sizes, the number of measurements and the output files."""
    base, add = Case(), parser.add_argument
    add("--seconds", type=int, default=12, metavar="N", help="duration of each run of --large (default 12)")
    add("--threads", type=int, default=base.threads, metavar="N", help="OpenMP threads per worker (default 1)")
    add("--turns", type=int, default=15, metavar="N", help="measurements of each implementation (default 15)")
    add("--only", metavar="A,B", help=ONLY)
    add("--json", type=Path, metavar="FILE", help="write all measurements to this file")
    add("--picture", type=Path, metavar="FILE.png", help="plot the result of --sizes to this file")
    for name, meaning in (
        ("streams", "streams in total; with --workers, per worker in weak and in total in strong scaling"),
        ("seq_len", "characters per window"),
        ("hidden_size", "hidden units"),
        ("vocab_size", "characters in the vocabulary"),
    ):
        flag, default = f"--{name.replace('_', '-')}", getattr(base, name)
        add(flag, type=int, default=default, metavar="N", help=f"{meaning} (default {default})")


def measure(entries: Sequence[Entry], turns: int) -> List[Timing]:
    """Measure the entries in turns."""
    with start_pools(entries) as pools, tqdm(total=turns * len(entries), desc="measuring", leave=False) as bar:
        return measure_in_turns(pools, turns, bar.update)


def measure_sizes(base: Case, only: Optional[str], turns: int) -> List[Timing]:
    """Measure the base case, and every case that differs from it in one size of SIZES."""
    cases = [base, *(base._replace(**{size: value}) for size, values in SIZES.items() for value in values)]
    names = registry.select(registry.SIZES, only)
    return [timing for case in tqdm(cases) for timing in measure([Entry(name, case) for name in names], turns)]


def profile(case: Case) -> str:
    """Profile this project's step, and return a table of its operators."""
    with start_pools([Entry("ours", case)]) as (pool,):
        pool.call("steps", 5)  # warm-up
        return table.of_operators(pool.call("profile", 20)[0])


def run_benchmark(args: argparse.Namespace, base: Case) -> Tuple[List[Timing], str]:
    """Run the selected benchmark, and return its timings of steps, if it has any, and its table."""
    if args.prepare:
        with tqdm(total=2 * args.turns, desc="measuring", leave=False) as bar:
            return [], prepare.format_table(prepare.measure(args.prepare, args.turns, bar.update))
    if args.large:
        with tqdm(total=4 * args.turns, desc="training", leave=False) as bar:
            pairs = large_corpus.measure(base, args.large, args.turns, args.seconds, bar.update)
            return [], large_corpus.format_table(pairs)
    if args.profile:
        return [], profile(base)
    if args.workers > 1:
        timings = measure(registry.scaling_entries(base, args.workers, args.only), args.turns)
        return timings, table.of_scaling(timings)
    if args.sizes:
        timings = measure_sizes(base, args.only, args.turns)
        return timings, table.of_sizes(timings, base)
    named = registry.ON_GPU if args.gpu else registry.ON_ONE_WORKER
    names = registry.GUARDS if args.guards else registry.select(named, args.only)
    timings = measure([Entry(name, base) for name in names], args.turns)
    return timings, table.of_implementations(timings)


def machine(threads: int) -> str:
    """Describe the machine in one line."""
    cores = len(os.sched_getaffinity(0))
    return f"{this_processor().name}, {cores} cores, {threads} thread(s) per worker, Python {platform.python_version()}"


def main(argv: Optional[List[str]] = None) -> None:
    """Run the selected benchmark, print its table, and write the requested files."""
    args = parse(argv)
    base = Case(args.streams, args.seq_len, args.hidden_size, args.vocab_size, 1, args.threads)
    timings, text = run_benchmark(args, base)
    sizes = [] if args.prepare else [f"B={base.streams}", f"T={base.seq_len}", f"H={base.hidden_size}"]
    vocabulary = [] if args.prepare or args.large else [f"V={base.vocab_size}"]  # those two use the songs' vocabulary
    print("; ".join(filter(None, [machine(args.threads), ", ".join([*sizes, *vocabulary])])))
    print(text)
    if args.picture:
        plot.of_sizes(timings, base, SIZES, args.picture)
    if args.json:
        facts = {"machine": machine(args.threads), "timings": [timing.to_json() for timing in timings]}
        args.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
