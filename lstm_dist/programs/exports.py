"""The formats of other tools in which jobs/report.py writes what was measured."""

from argparse import ArgumentTypeError
from pathlib import Path
from typing import Dict, List, Sequence

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.mlperf_log import mlperf_log
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.extrap_text import extrap_texts

MLPERF, EXTRAP = "mlperf", "extrap"
FORMATS = (MLPERF, EXTRAP)


def formats(text: str) -> List[str]:
    """Return the formats that --export names.

    Raises:
        ArgumentTypeError: if one is unknown.
    """
    names = text.split(",")
    for name in names:
        if name not in FORMATS:
            raise ArgumentTypeError(f"{name!r} should be one of {', '.join(FORMATS)}")
    return names


def of_run(folder: Path, names: Sequence[str]) -> Dict[str, str]:
    """Return the texts of the files to write, by their names in `folder`, the directory of a run.

    Raises:
        UserError: if there is nothing to export in one of the formats.
    """
    if EXTRAP in names:
        raise UserError(f"--export extrap: {folder} is a single run; give the --out of jobs/scale.py")
    return {"mlperf.log": mlperf_log(folder)} if names else {}


def of_experiment(findings: Findings, folder: Path, names: Sequence[str]) -> Dict[str, str]:
    """Return the texts of the files to write, by their names in `folder`, that of a scaling experiment.

    Raises:
        UserError: if there is nothing to export in one of the formats.
    """
    files: Dict[str, str] = {}
    if MLPERF in names:
        jobs = [row.id for row in findings.rows.train_rows if row.state == "finished"]
        if not jobs:
            raise UserError("--export mlperf: no training job has finished; leave mlperf out", ExitStatus.NO_INPUT)
        files.update({f"mlperf/{job}.log": mlperf_log(folder / "points" / job / "run") for job in jobs})
    if EXTRAP in names:
        files.update(extrap_texts(findings))
    return files
