"""The times of a step as text files of Extra-P, which fits models of how they grow with the number of workers.

https://github.com/extra-p/extrap/blob/main/docs/file-formats.md
"""

from statistics import fmean
from typing import Dict, List, Optional, Sequence

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.summary import full_name
from lstm_dist.scaling.throughput import JobGroup


def extrap_texts(findings: Findings) -> Dict[str, str]:
    """Return the texts of weak and strong scaling, of each series, by the names of their files.

    Raises:
        UserError: if no mode has a point that was not oversubscribed.
    """
    seq_len = findings.rows.experiment.seq_len
    texts = {f"extrap-{_words(mode.title)}.txt": _text(mode, seq_len) for mode in findings.modes}
    found = {name: text for name, text in texts.items() if text}
    if not found:
        reason = "no training job has finished that was not oversubscribed; leave extrap out"
        raise UserError(f"--export extrap: {reason}", ExitStatus.NO_INPUT)
    return found


def _words(title: str) -> str:
    """Return a title as a part of a file name, as in weak-gloo-2-threads."""
    return "-".join(title.replace(",", "").split())


def _text(mode: ModeFindings, seq_len: int) -> str:
    """Return the text of a mode; empty if all of its points were oversubscribed.

    Every repetition is one value of a point: the seconds of a step by its throughput, and the mean of each part over
    its timed steps and workers.
    """
    groups = [rate.group for rate in mode.throughputs if not rate.group.oversubscribed]
    if not groups:
        return ""
    regions = {"step": [[group.streams * seq_len / row.chars_per_sec for row in group.rows] for group in groups]}
    for part in PARTS:
        values = _means(groups, part)
        if values:
            regions[f"step->{LABELS[part]}"] = values
    lines = [
        f"# {full_name(mode)}: seconds of a step by number of workers, oversubscribed ones left out",
        "PARAMETER workers",
        f"POINTS {' '.join(f'({group.workers})' for group in groups)}",
    ]
    for region, points in regions.items():
        lines += ["", f"REGION {region}", "METRIC time"]
        lines += [f"DATA {' '.join(f'{seconds:.9f}' for seconds in repetitions)}" for repetitions in points]
    return "\n".join(lines) + "\n"


def _means(groups: Sequence[JobGroup], part: str) -> Optional[List[List[float]]]:
    """Return the mean seconds of a part in every job that has profiles; None if a group has no such job."""
    means = [[_mean(row, part) for row in group.rows if row.times] for group in groups]
    return means if all(means) else None


def _mean(row: TrainRow, part: str) -> float:
    return fmean(float(getattr(profile, part)) for profile in row.times)
