"""Report a scaling experiment, the difference of two, or what the time of a run went to, as pages and CSV files.

python jobs/report.py DIR                DIR is the --out of jobs/scale.py, which may still be running
python jobs/report.py A B                both are --out folders of jobs/scale.py; B is compared with A
python jobs/report.py RUN_DIR            RUN_DIR is the --run-dir of a training run, which may still be running
python jobs/report.py RUN_DIR --trace    the steps of a run with --time-every, for a trace viewer
python jobs/report.py DIR --export mlperf,extrap    also what was measured, for other tools

It writes DIR/report.html (a single file that needs no network), DIR/report.md with the same content, and CSV files of
the tables: of an experiment scaling.csv, efficiency.csv, times.csv, steps.csv, workers.csv, network.csv,
perplexity.csv, cost.csv and spent.csv, as far as they have been measured; of a run goodput.csv and attempts.csv. A
comparison is written to B/comparison.html, comparison.md, comparison.csv and comparison-steps.csv.

With --trace, only RUN_DIR/trace.json is written, in the Trace Event Format, which the Perfetto viewer (ui.perfetto.dev)
opens. With --export, an experiment also gets logs of MLPerf, DIR/mlperf/JOB.log, or texts of Extra-P,
DIR/extrap-weak.txt and extrap-strong.txt (or one for each series, as in extrap-weak-gloo.txt); a run gets
RUN_DIR/mlperf.log.
"""

import argparse
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Tuple

from lstm_dist.cli import TeachingParser
from lstm_dist.errors import UserError
from lstm_dist.experiments import run_report, run_trace
from lstm_dist.experiments.report import render
from lstm_dist.experiments.report.document import Report
from lstm_dist.programs import exports
from lstm_dist.scaling import records
from lstm_dist.scaling.analysis import analyse
from lstm_dist.scaling.comparison import report as comparison
from lstm_dist.scaling.sections.report import report as scaling_report


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Parse the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/report.py", description=__doc__, allow_abbrev=False, formatter_class=formatter)
    folders = "folder of the results, the --out of jobs/scale.py or the --run-dir of a run; two are compared"
    parser.add_argument("folders", type=Path, nargs="+", metavar="DIR", help=folders)
    mixed = "accept results of different machines or programs, with a warning in the report"
    parser.add_argument("--allow-mixed", action="store_true", help=mixed)
    trace = "write the timed steps, attempts and checkpoints of a run into trace.json instead, for a trace viewer"
    parser.add_argument("--trace", action="store_true", help=trace)
    export = "also write what was measured for other tools: mlperf (mlperf-logging), extrap (Extra-P), or both"
    parser.add_argument("--export", type=exports.formats, default=[], metavar="FORMAT,FORMAT", help=export)
    given = parser.parse(argv)
    if len(given.folders) > 2:
        raise UserError(f"DIR: give one folder, or two to compare them; {len(given.folders)} were given")
    if given.trace and len(given.folders) > 1:
        raise UserError("--trace: give the directory of one run")
    if given.export and (given.trace or len(given.folders) > 1):
        raise UserError("--export: give one folder, and no --trace")
    return given


def make_report(folder: Path, names: Sequence[str], allow_mixed: bool) -> Tuple[Report, Dict[str, str]]:
    """Return the report of a run, if the folder is the directory of one, else that of a scaling experiment.

    Args:
        folder: with the results.
        names: of the formats of other tools, in which the results are exported.
        allow_mixed: whether results of different machines or programs are accepted.

    Returns:
        The report, and the exported texts by the names of their files.

    Raises:
        UserError: if the folder is neither, or its results cannot be reported or exported.
    """
    if run_report.is_run(folder):
        return run_report.report(folder), exports.of_run(folder, names)
    findings = analyse(records.read_rows(folder, allow_mixed))
    return scaling_report(findings, folder), exports.of_experiment(findings, folder, names)


def make_comparison(folders: List[Path], allow_mixed: bool) -> Report:
    """Return the report that compares two scaling experiments.

    Raises:
        UserError: if one of them is none, or they have no point in common.
    """
    for folder in filter(run_report.is_run, folders):
        raise UserError(f"{folder}: is the directory of a run; only experiments of jobs/scale.py can be compared")
    return comparison.report(folders, [records.read_rows(folder, allow_mixed) for folder in folders])


def main(argv: Optional[List[str]] = None) -> None:
    """Write the report and print its summary, or write the trace."""
    given = parse(argv)
    if given.trace:
        print(run_trace.write(given.folders[0]))
        return
    stem = render.STEM
    others: Dict[str, str] = {}
    if len(given.folders) == 2:
        stem, report = comparison.STEM, make_comparison(given.folders, given.allow_mixed)
    else:
        report, others = make_report(given.folders[0], given.export, given.allow_mixed)
    files = render.write(report, given.folders[-1], stem, others)
    print(report.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
