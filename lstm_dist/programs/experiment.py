"""Run the exercises of the D2L chapter: the effect of each setting on perplexity, over several seeds.

python jobs/experiment.py --out exercises                              the whole grid, which takes hours
python jobs/experiment.py --out DIR --vary hidden-size=64,256          one setting with these values
python jobs/experiment.py --out DIR --workers 4 -- --corpus my.txt     the flags after -- go to jobs/train.py
python jobs/experiment.py --out DIR --report                           the report of the trials completed so far

One setting at a time differs from those of the D2L chapter. A tenth of the text is the validation set. The same command
resumes an interrupted experiment. The report is DIR/report.html, a single file, with the same data in report.md and in
CSV files.
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
from lstm_dist.errors import ExitStatus, UserError, print_warning
from lstm_dist.experiments.launchers import Horovodrun
from lstm_dist.experiments.report import render
from lstm_dist.files import claim, missing_guarantees
from lstm_dist.sweep.analysis import report
from lstm_dist.sweep.grid import DEFAULT, parse_grid, plan_trials, refuse_determined, require_long_enough
from lstm_dist.sweep.runner import SweepSettings, Trials, read_rows, read_settings
from lstm_dist.train.command_line import parse_config


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Parse and check the flags before the --.

    Raises:
        UserError: if a flag is invalid; the message names it.
    """
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/experiment.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    add = parser.add_argument
    add("--out", type=Path, required=True, metavar="DIR", help="folder of the trials and the report")
    varied = "; ".join(f"{factor}={','.join(values)}" for factor, values in DEFAULT.items())
    add(
        "--vary",
        action="append",
        default=[],
        metavar="FACTOR=V,V",
        help=f"values of one setting; repeatable (default {varied})",
    )
    add("--seeds", type=int, default=3, metavar="N", help="seeds 0 to N-1 for every setting (default %(default)s)")
    add("--epochs", type=int, default=200, metavar="N", help="epochs per run (default %(default)s)")
    fraction = "fraction of the text, taken from the end, used for validation (default %(default)s)"
    add("--valid-fraction", type=float, default=0.1, metavar="X", help=fraction)
    add("--retry-failed", action="store_true", help="rerun failed trials")
    add("--dry-run", action="store_true", help="print the commands of the trials that remain, and run none")
    add("--report", action="store_true", help="run nothing, and write the report of the completed trials")
    start = parser.add_argument_group("launching the workers").add_argument
    start("--workers", type=int, default=1, metavar="N", help="workers per run (default %(default)s)")
    start("--controller", choices=("mpi", "gloo"), default="mpi", help="controller of horovodrun (default %(default)s)")
    start("-H", dest="hosts", metavar="HOST:N,...", help="hosts and their numbers of workers, filled in this order")
    start("--hostfile", metavar="FILE", help="file with the hosts, one per line")
    start("--interface", default="", metavar="IF", help="network interface for communication between the hosts")
    given = parser.parse(argv)
    for flag, value in (("--seeds", given.seeds), ("--epochs", given.epochs), ("--workers", given.workers)):
        if value < 1:
            raise UserError(f"{flag} {value}: should be at least 1")
    if not 0 < given.valid_fraction < 1:
        raise UserError(f"--valid-fraction {given.valid_fraction:g}: should be between 0 and 1")
    return given


def write_report(out: Path) -> int:
    """Write the report of the completed trials; return the number of failed ones."""
    rows, settings = read_rows(out), read_settings(out)
    if not rows:
        raise UserError(f"--out {out}: no trial has been completed yet", ExitStatus.NO_INPUT)
    page = report(rows, settings)
    files = render.write(page, out)
    print(page.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
    return sum(row.state == "failed" for row in rows)


def prepare(given: argparse.Namespace, flags: List[str]) -> Trials:
    """Return the trials of this command line; `flags` are those after the --.

    Raises:
        UserError: if a flag is invalid; the message names it.
    """
    trials = plan_trials(parse_grid(given.vary), given.seeds)
    base = {"valid_fraction": given.valid_fraction}
    refuse_determined(parse_config(flags, base), parse_config([], base))
    flags = [*flags, f"--valid-fraction={given.valid_fraction:g}"]
    for trial in trials:
        settings = parse_config([*flags, *trial.flags])
        if trial.seed == 0:  # all seeds train on the same text
            require_long_enough(settings, given.workers)
    hosts = tuple(choose_hosts(given.hosts, given.hostfile))
    interface = parse_interface(given.interface) if given.interface else ""
    if interface and not hosts:
        raise UserError(f"--interface {interface}: only with -H or --hostfile: add one, or leave it out")
    launcher = Horovodrun(Workers(given.workers, hosts, given.controller, interface))
    if given.workers > launcher.max_workers:
        reason = f"at most {launcher.max_workers} can run ({launcher.description}): give fewer, or more hosts"
        raise UserError(f"--workers {given.workers}: {reason}")
    return Trials(trials, SweepSettings(flags, given.epochs, given.workers), given.out, launcher)


def main(argv: List[str]) -> int:
    """Run the trials that have no row yet, then write the report; return 1 if a trial has failed, else 0."""
    cut = argv.index("--") if "--" in argv else len(argv)
    given = parse(argv[:cut])
    if given.report:
        return int(write_report(given.out) > 0)
    trials = prepare(given, argv[cut + 1 :])
    if given.dry_run:
        print("\n".join(shlex.join(trials.command(name)) for name in trials.missing(given.retry_failed)))
        return 0
    if trials.missing(given.retry_failed):
        trials.launcher.require_usable()
    trials.open()
    with claim(given.out, "--out"):
        for warning in missing_guarantees(given.out):
            print_warning(warning)
        names = trials.missing(given.retry_failed)
        with tqdm(names, total=trials.total, initial=trials.total - len(names), desc="trials", unit="run") as bar:
            for name in bar:
                row = trials.run(name)
                if row.state == "failed":
                    bar.write(f"{name}: failed: {row.message}", file=sys.stderr)
    return int(write_report(given.out) > 0)
