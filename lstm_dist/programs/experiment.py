"""The chapter's exercises as experiments: what each setting does to perplexity, over several seeds.

python jobs/experiment.py --out exercises                              the whole grid; hours, and goes on where it was
python jobs/experiment.py --out DIR --vary hidden-size=64,256          one setting, these values
python jobs/experiment.py --out DIR --workers 4 -- --corpus my.txt     what is behind -- goes to jobs/train.py
python jobs/experiment.py --out DIR --report                           the report of what is done by now

One setting differs from the document's at a time. A tenth of the text is held out. The report is DIR/report.html, one
file, with the same facts in report.md and CSV files.
"""

import argparse
import shlex
import sys
from pathlib import Path
from typing import List, Sequence

from tqdm import tqdm

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.hosts import choose_hosts, parse_interface
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.launchers import Horovodrun
from lstm_dist.experiments.report import render
from lstm_dist.files import claim
from lstm_dist.sweep.analysis import report
from lstm_dist.sweep.grid import DEFAULT, parse_grid, plan, require_free, require_text
from lstm_dist.sweep.runner import Setup, Trials, read, read_setup
from lstm_dist.train.command_line import parse_config


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The part of the command line before --, every value in its range."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/experiment.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="where trials and report are kept")
    varied = ", ".join(f"{factor}={','.join(values)}" for factor, values in DEFAULT.items())
    add("--vary", action="append", default=[], metavar="FACTOR=V,V", help=f"repeatable; without it {varied}")
    add("--seeds", type=int, default=3, metavar="N", help="runs of each, with seeds 0, 1, ... (default %(default)s)")
    add("--epochs", type=int, default=200, metavar="N", help="of each run (default %(default)s)")
    add("--valid-fraction", type=float, default=0.1, metavar="X", help="of the text, held out (default %(default)s)")
    add("--retry-failed", action="store_true", help="run trials again that have failed")
    add("--dry-run", action="store_true", help="show the command of every trial that there is to run, and run none")
    add("--report", action="store_true", help="run nothing: write the report of what is done")
    start = parser.add_argument_group("how workers are started").add_argument
    start("--workers", type=int, default=1, metavar="N", help="of each run (default %(default)s)")
    start("--controller", choices=("mpi", "gloo"), default="mpi", help="of horovodrun (default %(default)s)")
    start("-H", dest="hosts", metavar="HOST:N,...", help="on these hosts, the first filled first")
    start("--hostfile", metavar="FILE", help="the same, one a line")
    start("--interface", default="", metavar="IF", help="the network interface through which they talk")
    given = parser.parse(argv)
    for flag, value in (("--seeds", given.seeds), ("--epochs", given.epochs), ("--workers", given.workers)):
        if value < 1:
            raise UserError(f"{flag} {value}: should be at least 1")
    if not 0 < given.valid_fraction < 1:
        raise UserError(f"--valid-fraction {given.valid_fraction:g}: should be between 0 and 1")
    return given


def write_report(out: Path) -> int:
    """The report of what is done; how many trials have failed."""
    rows, setup = read(out), read_setup(out)
    if not rows:
        raise UserError(f"--out {out}: nothing was tried yet", ExitStatus.NO_INPUT)
    whole = report(rows, setup)
    files = render.write(whole, out)
    print(whole.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
    return sum(row.state == "failed" for row in rows)


def settle(given: argparse.Namespace, flags: List[str]) -> Trials:
    """What there is to be tried, how, and where.

    Raises:
        UserError: naming the flag of a mistake.
    """
    trials = plan(parse_grid(given.vary), given.seeds)
    require_free(parse_config(flags), parse_config([]))
    flags = [*flags, f"--valid-fraction={given.valid_fraction:g}"]
    for trial in trials:
        settings = parse_config([*flags, *trial.flags])
        if trial.seed == 0:  # the others are of the same text
            require_text(settings, given.workers)
    hosts = tuple(choose_hosts(given.hosts, given.hostfile))
    interface = parse_interface(given.interface) if given.interface else ""
    launcher = Horovodrun(Workers(given.workers, hosts, given.controller, interface))
    return Trials(trials, Setup(flags, given.epochs, given.workers), given.out, launcher)


def main(argv: List[str]) -> int:
    """Run what has no row yet, then report; 1 if a trial has failed."""
    cut = argv.index("--") if "--" in argv else len(argv)
    given = parse(argv[:cut])
    if given.report:
        return int(write_report(given.out) > 0)
    trials = settle(given, argv[cut + 1 :])
    if given.dry_run:
        print("\n".join(shlex.join(trials.command(name)) for name in trials.missing(given.retry_failed)))
        return 0
    trials.open()
    with claim(given.out, "--out"):
        names = trials.missing(given.retry_failed)
        with tqdm(names, total=trials.number, initial=trials.number - len(names), desc="trying", unit="run") as bar:
            for name in bar:
                row = trials.run(name)
                if row.state == "failed":
                    bar.write(f"{name}: failed: {row.message}", file=sys.stderr)
    return int(write_report(given.out) > 0)
