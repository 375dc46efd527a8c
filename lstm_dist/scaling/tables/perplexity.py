"""Table of the time to the target perplexity."""

from typing import List

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate_cells
from lstm_dist.experiments.report.formatters import number
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.tables.cells import count_cell, failed_row, mark
from lstm_dist.scaling.time_to_perplexity import TargetRuns


def perplexity_table(findings: Findings) -> Table:
    """Return one row per global batch and number of workers, and one per failed job."""
    several = len(findings.series) > 1
    columns = [
        *(["jobs with"] if several else []),
        "streams",
        "workers",
        "jobs",
        "characters",
        "95 %",
        "statistical, %",
        "chars/s",
        "95 %",
        "hardware, %",
    ]
    columns += ["both, %", "time to target, s", "95 %", ""]
    order = {series.series: place for place, series in enumerate(findings.series)}
    rows = [((order[runs.series], runs.streams, runs.workers), _target_row(runs)) for runs in findings.target_runs]
    for series in findings.series:
        for job in series.failed(["perplexity"]):
            cells = [*_series_cells(series.series), count_cell("streams", job.streams)]
            row = failed_row(job, [*cells, count_cell("workers", job.workers)], len(columns))
            rows.append(((order[series.series], job.streams, job.workers), row))
    rows.sort(key=lambda row: row[0])
    caption = "Statistical and hardware efficiency, and their product, relative to the smallest global batch"
    return Table(caption, columns, [row for _, row in rows], "perplexity.csv")


def _series_cells(series: str) -> List[Cell]:
    return [Cell(series, {"series": series})] if series else []


def _target_row(runs: TargetRuns) -> Row:
    text = mark(runs.oversubscribed)
    missed = f"{runs.missed} did not reach it" if runs.missed else ""
    statistical, hardware, both = 100 * runs.statistical.value, 100 * runs.hardware.value, 100 * runs.both
    return Row(
        [
            *_series_cells(runs.series),
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
