"""What the measured jobs of a folder say, as a page to look at, as Markdown to quote, and as CSV files.

python jobs/report.py DIR            DIR is the --out of jobs/scale.py, and may be asked again while that is running

It writes DIR/report.html (one file, opens without a network), DIR/report.md with the same facts, and DIR/scaling.csv,
times.csv, network.csv and perplexity.csv of what was measured so far.
"""

import argparse
from pathlib import Path
from typing import List, Optional

from lstm_dist.cli import TeachingParser
from lstm_dist.experiments.report import render
from lstm_dist.scaling import analysis, records, sections


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/report.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    parser.add_argument("folder", type=Path, metavar="DIR", help="what jobs/scale.py --out was given")
    parser.add_argument(
        "--allow-mixed", action="store_true", help="compare rows of different machines or programs, and say so"
    )
    return parser.parse(argv)


def main(argv: Optional[List[str]] = None) -> None:
    """Read, conclude, write, and say what bounds the job."""
    given = parse(argv)
    found = analysis.find(records.read(given.folder, given.allow_mixed))
    report = sections.report(found, given.folder)
    files = render.write(report, given.folder)
    print(report.summary)
    print(f"written: {', '.join(str(path) for path in files)}")
