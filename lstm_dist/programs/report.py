"""Report the results of a scaling experiment as an HTML page, as Markdown, and as CSV files.

python jobs/report.py DIR            DIR is the --out of jobs/scale.py, which may still be running

It writes DIR/report.html (a single file that needs no network), DIR/report.md with the same content, and scaling.csv,
times.csv, network.csv and perplexity.csv, as far as they have been measured.
"""

import argparse
from pathlib import Path
from typing import List, Optional

from lstm_dist.cli import TeachingParser
from lstm_dist.experiments.report import render
from lstm_dist.scaling import records, sections
from lstm_dist.scaling.analysis import analyse


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Parse the command line."""
    formatter = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/report.py", description=__doc__, allow_abbrev=False, formatter_class=formatter)
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of the results, the --out of jobs/scale.py")
    mixed = "accept results of different machines or programs, with a warning in the report"
    parser.add_argument("--allow-mixed", action="store_true", help=mixed)
    return parser.parse(argv)


def main(argv: Optional[List[str]] = None) -> None:
    """Write the report, and print its summary."""
    given = parse(argv)
    findings = analyse(records.read_rows(given.folder, given.allow_mixed))
    report = sections.report(findings, given.folder)
    files = render.write(report, given.folder)
    print(report.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
