"""Section about the time of a step."""

from typing import Sequence

from lstm_dist.experiments.report.document import Section
from lstm_dist.scaling import figures
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.sections.suggestion import WORKERS
from lstm_dist.scaling.tables.step_times import parts_table, shares_table, slowest_table


def step_times(findings: Findings, out: str) -> Section:
    """Build the section; `out` is the flag of the commands that would complete it."""
    section = Section("times", "Time of a step", [])
    modes = [mode for mode in findings.modes if mode.breakdowns]
    if not modes:
        return section._replace(paragraphs=[f"No step was timed; run `jobs/scale.py {WORKERS} {out}`."])
    paragraphs = [
        "The parts of the timed steps: data is cutting the window, compute is forward and backward pass, wait is "
        "waiting for the slowest worker, communication is the averaging allreduce, update is clipping and the SGD "
        "step. Hatched bars are oversubscribed."
    ]
    tables, notes = [], []
    if any(mode.loss_shares for mode in modes):
        tables.append(shares_table(modes))
        notes.append(
            f"Useful compute is the compute of a {_baseline(modes)} for as many streams; extra compute is the rest of "
            "the measured compute. Latency and bandwidth are the measured communication, divided in the ratio that the "
            "fitted link predicts."
        )
    if any(breakdown.slowest for mode in modes for breakdown in mode.breakdowns):
        tables.append(slowest_table(modes))
    tables.append(parts_table(modes))
    pictures = [[figures.step_times_figure(mode) for mode in modes]]
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _baseline(modes: Sequence[ModeFindings]) -> str:
    is_one = all(shares.breakdown.group.workers == 1 for mode in modes for shares in mode.loss_shares[:1])
    return "single worker" if is_one else "worker of the baseline, the smallest number of workers,"
