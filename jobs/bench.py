#!/usr/bin/env python3
"""How fast the training step is, beside what one would take instead, measured in turns on this machine.

python jobs/bench.py                 ours, MXNet's and PyTorch's LSTM, and the products that nobody can do without
python jobs/bench.py --workers 2     scaling: weak (32 streams each) and strong (32 in all), with and without exchange
python jobs/bench.py --sizes         cost of a character against the sizes of model and batch, with a picture

Every contestant is a process of its own, or as many as there are workers. Before anything is measured, all compute the
loss and gradients of the same window from the same weights, and have to agree. PyTorch's take part where torch is
installed: pip install -e '.[bench]'.
"""

import argparse
import importlib.util
import json
import os
import platform
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import numpy as np
from contest import picture, table
from contest.case import Case
from contest.team import Entry, Team
from contest.timing import Timing, first_window, require_equal, take_turns
from safetensors.numpy import save_file
from tqdm import tqdm

from lstm_dist.config import TeachingParser
from lstm_dist.errors import UserError, one_line_errors
from lstm_dist.model import initial_parameters

SINGLE = ("ours", "textbook", "gluon", "torch-lstm", "torch-cell", "torch-compiled", "matmul floor")
SWEPT = ("ours", "torch-lstm", "torch-cell", "torch-compiled")
SIZES = {"hidden_size": (512, 1024), "vocab_size": (10_000,), "streams": (128,), "seq_len": (128,)}


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line, every value in its range."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/bench.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--workers", type=int, default=1, metavar="N", help="measure scaling to N workers (default 1)")
    what.add_argument("--sizes", action="store_true", help="measure the cost of a character at other sizes")
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
        if isinstance(value, int) and value < 1 and name != "sizes":
            raise UserError(f"--{name.replace('_', '-')} {value}: should be at least 1")
    if given.workers > given.streams:
        raise UserError(f"--workers {given.workers}: more than the {given.streams} --streams; give each at least one")
    for flag, path in (("--json", given.json), ("--picture", given.picture)):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{flag} {path}: there is no folder {path.parent}; make it first")
    if given.picture is not None and not given.sizes:
        raise UserError("--picture: only --sizes is drawn; give both")
    return given


def choose(names: Sequence[str], only: Optional[str]) -> List[str]:
    """The contestants that were asked for and can run here."""
    asked = only.split(",") if only else list(names)
    for name in asked:
        if name not in names:
            raise UserError(f"--only {name}: no such contestant here, give some of: {', '.join(names)}")
    if importlib.util.find_spec("torch"):
        return asked
    print("torch is not installed, its contestants stay away: pip install -e '.[bench]'")
    return [name for name in asked if not name.startswith("torch")]


def scaling(base: Case, workers: int, only: Optional[str]) -> List[Entry]:
    """One worker, then N of them: as many streams each (weak), and as many in all (strong)."""
    weak = base._replace(workers=workers, streams=workers * base.streams)
    strong = base._replace(workers=workers)
    entries = []
    for name in choose(("ours", "torch-cell"), only):
        entries.append(Entry(name, base))
        for case in (weak, strong):
            if name == "ours":
                entries += [Entry("ours", case), Entry("ours, mute", case), Entry("ours", case, "gloo")]
            else:
                entries.append(Entry("torch-ddp", case, "gloo"))
    return entries


def measure(entries: Sequence[Entry], turns: int) -> List[Timing]:
    """Start all, see that they agree, and let them take turns."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        teams: List[Team] = []
        references: Dict[Case, Dict[str, np.ndarray]] = {}
        for number, entry in enumerate(tqdm(entries, desc="starting", leave=False)):
            own = folder / str(number)
            own.mkdir()
            case = entry.case
            save_file(initial_parameters(case.vocab_size, case.hidden_size, 0), own / "initial.safetensors")
            teams.append(stack.enter_context(Team(entry, own)))
            found = first_window(teams[-1])
            if found:
                require_equal(entry, found, references.setdefault(case.task, found))
        with tqdm(total=turns * len(teams), desc="measuring", leave=False) as bar:
            return take_turns(teams, turns, bar.update)


def machine(threads: int) -> str:
    """What it ran on, in one line."""
    with open("/proc/cpuinfo", encoding="utf-8") as lines:
        model = next((line.split(":")[1].strip() for line in lines if line.startswith("model name")), "unknown CPU")
    cores = len(os.sched_getaffinity(0))
    return f"{model}, {cores} cores, {threads} thread(s) a worker, Python {platform.python_version()}"


def main(argv: Optional[List[str]] = None) -> None:
    """Measure, print the table, and write what was asked for."""
    given = parse(argv)
    base = Case(given.streams, given.seq_len, given.hidden_size, given.vocab_size, 1, given.threads)
    if given.workers > 1:
        timings = measure(scaling(base, given.workers, given.only), given.turns)
        shown = table.of_scaling(timings)
    elif given.sizes:
        cases = [base, *(base._replace(**{size: value}) for size, values in SIZES.items() for value in values)]
        names = choose(SWEPT, given.only)
        timings = [t for case in tqdm(cases) for t in measure([Entry(name, case) for name in names], given.turns)]
        shown = table.of_sizes(timings, base)
    else:
        timings = measure([Entry(name, base) for name in choose(SINGLE, given.only)], given.turns)
        shown = table.of_contestants(timings)
    print(f"{machine(given.threads)}; B={base.streams}, T={base.seq_len}, H={base.hidden_size}, V={base.vocab_size}")
    print(shown)
    if given.picture:
        picture.of_sizes(timings, base, SIZES, given.picture)
    if given.json:
        facts = {"machine": machine(given.threads), "timings": [timing.to_json() for timing in timings]}
        given.json.write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    with one_line_errors():
        main()
