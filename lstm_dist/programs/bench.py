"""How fast the training step is, beside what one would take instead, measured in turns on this machine.

python jobs/bench.py                 ours, MXNet's and PyTorch's LSTM, and the products that nobody can do without
python jobs/bench.py --workers 2     scaling: weak (32 streams each) and strong (32 in all), with and without exchange
python jobs/bench.py --sizes         cost of a character against the sizes of model and batch, with a picture
python jobs/bench.py --guards        what signals, clocks, watchdog and stopwatch of a run cost our step
python jobs/bench.py --profile       what our step spends its time on
python jobs/bench.py --prepare 1000  preparing so many megabytes of text, beside a loop over characters
python jobs/bench.py --large 1000    training on so many megabytes of prepared text, beside training on a song

Every contestant is a process of its own, or as many as there are workers. Before anything is measured, all compute the
loss and gradients of the same window from the same weights, and have to agree. PyTorch's take part where torch is
installed: pip install -e '.[bench]'.
"""

import argparse
import json
import os
import platform
from pathlib import Path
from typing import List, Optional, Sequence

from tqdm import tqdm

from lstm_dist.bench import large_corpus, plot, prepare, table
from lstm_dist.bench.case import Case
from lstm_dist.bench.interleaved import Timing, started, take_turns
from lstm_dist.bench.registry import GUARDS, SINGLE, SWEPT, choose, scaling
from lstm_dist.bench.worker_pool import Entry
from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.provenance import processor
from lstm_dist.errors import UserError

SIZES = {"hidden_size": (512, 1024), "vocab_size": (10_000,), "streams": (128,), "seq_len": (128,)}


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line, every value in its range."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/bench.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--workers", type=int, default=1, metavar="N", help="measure scaling to N workers (default 1)")
    what.add_argument("--sizes", action="store_true", help="measure the cost of a character at other sizes")
    what.add_argument("--guards", action="store_true", help="measure our step with and without what guards a run")
    what.add_argument("--profile", action="store_true", help="measure the operators of our step instead")
    what.add_argument("--prepare", type=int, metavar="MB", help="measure jobs/prepare.py on so much text instead")
    what.add_argument("--large", type=int, metavar="MB", help="measure jobs/train.py on so much prepared text instead")
    parser.add_argument("--seconds", type=int, default=12, metavar="N", help="--large: of each run (default 12)")
    parser.add_argument("--threads", type=int, default=1, metavar="N", help="OpenMP threads a worker (default 1)")
    parser.add_argument("--turns", type=int, default=15, metavar="N", help="measurements of each (default 15)")
    parser.add_argument("--only", metavar="A,B", help=f"these contestants, of: {', '.join(SINGLE)}")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every measurement there")
    parser.add_argument("--picture", type=Path, metavar="FILE.png", help="draw what --sizes measured there")
    for name, value in Case()._asdict().items():
        if name not in ("workers", "threads"):
            flag = f"--{name.replace('_', '-')}"
            parser.add_argument(flag, type=int, default=value, metavar="N", help=f"of all workers (default {value})")
    given = parser.parse(argv)
    for name, value in vars(given).items():
        if isinstance(value, int) and value < 1 and not isinstance(value, bool):
            raise UserError(f"--{name.replace('_', '-')} {value}: should be at least 1")
    if given.workers > given.streams:
        raise UserError(f"--workers {given.workers}: more than the {given.streams} --streams; give each at least one")
    for flag, path in (("--json", given.json), ("--picture", given.picture)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{flag} {path}: there is no folder {path.parent}; make it first")
    if given.picture is not None and not given.sizes:
        raise UserError("--picture: only --sizes is drawn; give both")
    return given


def measure(entries: Sequence[Entry], turns: int) -> List[Timing]:
    """Let them take turns."""
    with started(entries) as teams, tqdm(total=turns * len(entries), desc="measuring", leave=False) as bar:
        return take_turns(teams, turns, bar.update)


def profile(case: Case) -> str:
    """Where the time of our step goes."""
    with started([Entry("ours", case)]) as (team,):
        team.ask("steps", 5)
        return table.of_operators(team.ask("profile", 20)[0])


def machine(threads: int) -> str:
    """What it ran on, in one line."""
    cores = len(os.sched_getaffinity(0))
    return f"{processor()}, {cores} cores, {threads} thread(s) a worker, Python {platform.python_version()}"


def main(argv: Optional[List[str]] = None) -> None:
    """Measure, print the table, and write what was asked for."""
    given = parse(argv)
    base = Case(given.streams, given.seq_len, given.hidden_size, given.vocab_size, 1, given.threads)
    timings: List[Timing] = []
    if given.prepare:
        with tqdm(total=2 * given.turns, desc="measuring", leave=False) as bar:
            found = prepare.measure(given.prepare, given.turns, bar.update)
        shown = prepare.table(found)
    elif given.large:
        with tqdm(total=4 * given.turns, desc="training", leave=False) as bar:
            shown = large_corpus.table(large_corpus.measure(base, given.large, given.turns, given.seconds, bar.update))
    elif given.profile:
        shown = profile(base)
    elif given.workers > 1:
        timings = measure(scaling(base, given.workers, given.only), given.turns)
        shown = table.of_scaling(timings)
    elif given.sizes:
        cases = [base, *(base._replace(**{size: value}) for size, values in SIZES.items() for value in values)]
        names: Sequence[str] = choose(SWEPT, given.only)
        timings = [t for case in tqdm(cases) for t in measure([Entry(name, case) for name in names], given.turns)]
        shown = table.of_sizes(timings, base)
    else:
        names = GUARDS if given.guards else choose(SINGLE, given.only)
        timings = measure([Entry(name, base) for name in names], given.turns)
        shown = table.of_contestants(timings)
    sizes = [] if given.prepare else [f"B={base.streams}", f"T={base.seq_len}", f"H={base.hidden_size}"]
    vocabulary = [] if given.prepare or given.large else [f"V={base.vocab_size}"]  # those have the songs'
    print("; ".join(filter(None, [machine(given.threads), ", ".join([*sizes, *vocabulary])])))
    print(shown)
    if given.picture:
        plot.of_sizes(timings, base, SIZES, given.picture)
    if given.json:
        facts = {"machine": machine(given.threads), "timings": [timing.to_json() for timing in timings]}
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
