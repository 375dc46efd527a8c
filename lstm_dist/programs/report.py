"""Report the results of a scaling experiment, or what the time of a run went to, as pages and CSV files.

python jobs/report.py DIR            DIR is the --out of jobs/scale.py, which may still be running
python jobs/report.py RUN_DIR        RUN_DIR is the --run-dir of a training run, which may still be running

It writes DIR/report.html (a single file that needs no network), DIR/report.md with the same content, and CSV files of
the tables: of an experiment scaling.csv, times.csv, network.csv and perplexity.csv, as far as they have been measured;
of a run goodput.csv and attempts.csv.
"""

import argparse
from pathlib import Path
from typing import List, Optional

from lstm_dist.cli import TeachingParser
from lstm_dist.experiments import run_report
from lstm_dist.experiments.report import render
from lstm_dist.experiments.report.document import Report
from lstm_dist.scaling import records
from lstm_dist.scaling.analysis import analyse
from lstm_dist.scaling.sections.report import report as scaling_report


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Parse the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/report.py", description=__doc__, allow_abbrev=False, formatter_class=formatter)
    folder = "folder of the results, the --out of jobs/scale.py or the --run-dir of a run"
    parser.add_argument("folder", type=Path, metavar="DIR", help=folder)
    mixed = "accept results of different machines or programs, with a warning in the report"
    parser.add_argument("--allow-mixed", action="store_true", help=mixed)
    return parser.parse(argv)


def make_report(folder: Path, allow_mixed: bool) -> Report:
    """Return the report of a run, if the folder is the directory of one, else that of a scaling experiment.

    Raises:
        UserError: if it is neither, or its results cannot be reported.
    """
    if run_report.is_run(folder):
        return run_report.report(folder)
    return scaling_report(analyse(records.read_rows(folder, allow_mixed)), folder)


def main(argv: Optional[List[str]] = None) -> None:
    """Write the report, and print its summary."""
    given = parse(argv)
    report = make_report(given.folder, given.allow_mixed)
    files = render.write(report, given.folder)
    print(report.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
