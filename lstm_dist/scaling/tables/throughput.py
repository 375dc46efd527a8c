"""Tables of throughput, speedup and efficiency, and of the fitted laws of speedup."""

from math import isfinite
from typing import Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate_cells
from lstm_dist.experiments.report.formatters import counted, milliseconds, number, signed
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.speedup_laws import Law
from lstm_dist.scaling.tables.cells import count_cell, failed_row, group_cells, mark, mode_cell, workers_cell
from lstm_dist.scaling.throughput import Throughput


def throughput_table(findings: Findings) -> Table:
    """Return one row per mode and number of workers, and one per failed job."""
    columns = ["mode", "workers", "streams", "jobs", "chars/s", "95 %", "speedup", "95 %", "efficiency, %", "95 %"]
    columns += ["ms per step", ""]
    order = {series.series: place for place, series in enumerate(findings.series)}
    finished = [
        (rate.group.mode, rate.group.series, rate.group.workers, _throughput_row(rate))
        for mode in findings.modes
        for rate in mode.throughputs
    ]
    failed = [
        (job.mode, series.series, job.workers, _failed_row(job, series.series, len(columns)))
        for series in findings.series
        for job in series.failed(MODES)
    ]
    rows = sorted([*finished, *failed], key=lambda row: (MODES.index(row[0]), order[row[1]], row[2]))
    caption = "Throughput, speedup and efficiency, with 95 % confidence intervals from the repeated jobs"
    return Table(caption, columns, [row for *_, row in rows], "scaling.csv")


def _failed_row(job: TrainRow, series: str, width: int) -> Row:
    cells = [mode_cell(job.mode, series), workers_cell(job.workers, job.hosts if job.hosts > 1 else 0)]
    return failed_row(job, [*cells, count_cell("streams", job.streams)], width)


def _throughput_row(rate: Throughput) -> Row:
    group = rate.group
    efficiency = rate.efficiency.scaled(100)
    text = mark(group.oversubscribed)
    notes = ["baseline" if rate.is_baseline and rate.baseline > 1 else "", text]
    return Row(
        [
            *group_cells(group),
            count_cell("streams", group.streams),
            count_cell("jobs", len(group.rows)),
            *estimate_cells("chars_per_sec", rate.chars_per_sec),
            *estimate_cells("speedup", rate.speedup, 2),
            *estimate_cells("efficiency_percent", efficiency, 1),
            Cell(milliseconds(rate.step, 1), {"step_ms": rate.step * 1000}),
            Cell(", ".join(filter(None, notes)), {"state": "finished", "oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def laws_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per fitted law."""
    columns = ["law", "fitted to", "contention σ, %", "coherency κ, %", "maximum speedup", "measured / fitted − 1"]
    rows = [_law_row(mode, law) for mode in modes for law in (mode.laws.amdahl, mode.laws.usl) if law]
    return Table("Laws of speedup, fitted to the numbers of workers that were not oversubscribed", columns, rows)


def _law_row(mode: ModeFindings, law: Law) -> Row:
    laws = mode.laws
    residuals = [f"{workers}: {signed(100 * value)} %" for workers, value in zip(laws.workers, law.residuals)]
    facts = {f"residual_{workers}_percent": 100 * value for workers, value in zip(laws.workers, law.residuals)}
    coherency = number(100 * law.coherency, 3) if law is laws.usl else "–"
    return Row(
        [
            Cell(f"{law.name}, {mode.title}"),
            Cell(f"{', '.join(map(str, laws.workers))} workers"),
            Cell(number(100 * law.contention, 2), {"contention_percent": 100 * law.contention}),
            Cell(coherency, {"coherency_percent": 100 * law.coherency}),
            Cell(_limit_text(law), {"limit": law.limit, "peak": law.peak}),
            Cell("; ".join(residuals), facts),
        ]
    )


def _limit_text(law: Law) -> str:
    if not isfinite(law.limit):
        return "no limit"
    return number(law.limit, 1) + (f" at {counted(round(law.peak), 'worker')}" if isfinite(law.peak) else "")
