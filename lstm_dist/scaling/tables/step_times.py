"""Tables of the time of a step: shares of the losses, times of the parts, and the slowest rank."""

from math import isnan, nan
from typing import Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table
from lstm_dist.experiments.report.formatters import milliseconds, number
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.bottlenecks import LossShares
from lstm_dist.scaling.step_breakdown import StepBreakdown
from lstm_dist.scaling.tables.cells import group_cells, mark


def shares_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", "ms per step", "useful compute, %", "extra compute, %", "wait, %", "latency, %"]
    columns += ["bandwidth, %", "data and update, %", ""]
    rows = [_shares_row(shares) for mode in modes for shares in mode.loss_shares]
    return Table("Shares of the time of a step", columns, rows)


def _shares_row(shares: LossShares) -> Row:
    breakdown, text = shares.breakdown, mark(shares.breakdown.group.oversubscribed)
    parts = {
        "useful": shares.useful,
        "extra_compute": shares.extra_compute,
        "wait": shares.wait,
        "latency": shares.latency,
        "bandwidth": shares.bandwidth,
        "other": shares.other,
    }
    cells = [Cell(number(100 * value, 1), {f"{name}_percent": 100 * value}) for name, value in parts.items()]
    if isnan(shares.latency):
        percent = 100 * shares.communication
        cells[3:5] = [Cell(f"communication: {number(percent, 1)}", {"communication_percent": percent}, 2)]
    return Row(
        [
            *group_cells(breakdown.group),
            Cell(milliseconds(breakdown.total), {"step_ms": 1000 * breakdown.total}),
            *cells,
            Cell(text),
        ],
        text,
    )


def parts_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode, number of workers and part of a step."""
    columns = ["mode", "workers", "part", "mean, ms", "share, %", "minimum, ms", "median, ms", "maximum, ms"]
    columns += ["slowest rank", "% of steps"]
    rows = [_part_row(breakdown, part) for mode in modes for breakdown in mode.breakdowns for part in PARTS]
    caption = "The five parts of a step: overall mean, and the minimum, median and maximum of the workers' means"
    return Table(caption, columns, rows, "times.csv", collapsed=True)


def _part_row(breakdown: StepBreakdown, part: str) -> Row:
    times, group, slowest = breakdown.parts[part], breakdown.group, breakdown.slowest
    share = times.mean / breakdown.total
    cells = [
        *group_cells(group),
        Cell(LABELS[part], {"part": part}),
        Cell(milliseconds(times.mean), {"mean_ms": 1000 * times.mean}),
        Cell(number(100 * share, 1), {"share_percent": 100 * share}),
        Cell(milliseconds(times.minimum), {"least_ms": 1000 * times.minimum}),
        Cell(milliseconds(times.median), {"median_ms": 1000 * times.median}),
        Cell(milliseconds(times.maximum), {"most_ms": 1000 * times.maximum}),
    ]
    if slowest:
        facts = {"last_host": slowest.host, "last_rank": slowest.rank}
        cells.append(Cell(f"rank {slowest.rank} on {slowest.host}", facts))
        cells.append(Cell(number(100 * slowest.share, 1), {"last_percent": 100 * slowest.share}))
    else:
        cells += [Cell("–"), Cell("–")]
    return Row(cells, mark(group.oversubscribed))


def slowest_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode and number of workers above 1."""
    columns = ["mode", "workers", "slowest rank", "% of steps", "% if ranks were equal", "compute, ms", ""]
    rows = [_slowest_row(breakdown) for mode in modes for breakdown in mode.breakdowns if breakdown.slowest]
    caption = "The rank that was slowest most often; compute is the minimum, median and maximum of the workers' means"
    return Table(caption, columns, rows)


def _slowest_row(breakdown: StepBreakdown) -> Row:
    slowest, group, compute = breakdown.slowest, breakdown.group, breakdown.parts["compute"]
    text, share = mark(group.oversubscribed), 100 * slowest.share if slowest else nan
    return Row(
        [
            *group_cells(group),
            Cell(f"rank {slowest.rank} on {slowest.host}" if slowest else "–"),
            Cell(number(share, 1), {"last_percent": share}),
            Cell(number(100 / group.workers, 1), {"chance_percent": 100 / group.workers}),
            Cell(" / ".join(milliseconds(time, 1) for time in (compute.minimum, compute.median, compute.maximum))),
            Cell(text),
        ],
        text,
    )
