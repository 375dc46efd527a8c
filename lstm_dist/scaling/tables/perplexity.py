"""Table of the time to the target perplexity."""

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate_cells
from lstm_dist.experiments.report.formatters import number
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.tables.cells import count_cell, failed_row, group_cells, mark
from lstm_dist.scaling.time_to_perplexity import TargetRuns


def perplexity_table(findings: Findings) -> Table:
    """Return one row per global batch and number of workers, and one per failed job."""
    columns = ["streams", "workers", "jobs", "characters", "95 %", "statistical, %", "chars/s", "95 %", "hardware, %"]
    columns += ["both, %", "time to target, s", "95 %", ""]
    rows = [((runs.streams, runs.workers), _target_row(runs)) for runs in findings.target_runs]
    for job in findings.rows.failed(["perplexity"]):
        _, workers, streams = group_cells(job.mode, job.workers, job.streams)
        rows.append(((job.streams, job.workers), failed_row(job, [streams, workers], len(columns))))
    rows.sort(key=lambda row: row[0])
    caption = "Statistical and hardware efficiency, and their product, relative to the smallest global batch"
    return Table(caption, columns, [row for _, row in rows], "perplexity.csv")


def _target_row(runs: TargetRuns) -> Row:
    text = mark(runs.oversubscribed)
    missed = f"{runs.missed} did not reach it" if runs.missed else ""
    statistical, hardware, both = 100 * runs.statistical.value, 100 * runs.hardware.value, 100 * runs.both
    return Row(
        [
            count_cell("streams", runs.streams),
            count_cell("workers", runs.workers),
            count_cell("jobs", runs.reached),
            *estimate_cells("chars", runs.chars),
            Cell(number(statistical, 1), {"statistical_percent": statistical}),
            *estimate_cells("chars_per_sec", runs.chars_per_sec),
            Cell(number(hardware, 1), {"hardware_percent": hardware}),
            Cell(number(both, 1), {"both_percent": both}),
            *estimate_cells("seconds", runs.seconds, 1),
            Cell(
                ", ".join(filter(None, (missed, text))),
                {"state": "finished", "missed": runs.missed, "oversubscribed": runs.oversubscribed},
            ),
        ],
        text,
    )
