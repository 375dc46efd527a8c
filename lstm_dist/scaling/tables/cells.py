"""Cells and rows that several tables share; the facts of a cell keep the unrounded values."""

from typing import Any, Dict, List, Union

from lstm_dist.experiments.report.document import Cell, Row
from lstm_dist.experiments.report.formatters import counted, number
from lstm_dist.scaling.records import AllreduceRow, TrainRow
from lstm_dist.scaling.throughput import JobGroup


def count_cell(name: str, value: int) -> Cell:
    """Return a cell with a count."""
    return Cell(number(value), {name: value})


def mode_cell(mode: str, series: str = "") -> Cell:
    """Return a cell with the mode, and the series if there are several."""
    facts = {"mode": mode, "series": series}
    return Cell(", ".join(filter(None, facts.values())), {name: value for name, value in facts.items() if value})


def workers_cell(workers: int, hosts: int = 0) -> Cell:
    """Return a cell with the number of workers, and with that of their hosts unless it is 0."""
    facts: Dict[str, Any] = {"workers": workers, **({"hosts": hosts} if hosts else {})}
    return Cell(f"{number(workers)} on {counted(hosts, 'host')}" if hosts else number(workers), facts)


def group_cells(group: JobGroup) -> List[Cell]:
    """Return the first two cells of a row about training jobs."""
    return [mode_cell(group.mode, group.series), workers_cell(group.workers, group.hosts)]


def mark(oversubscribed: bool) -> str:
    """Return the mark of a row, which is also the text of its last cell."""
    return "oversubscribed" if oversubscribed else ""


def failed_row(job: Union[TrainRow, AllreduceRow], cells: List[Cell], width: int) -> Row:
    """Return a row of `width` columns with the error message of a failed job after `cells`."""
    name = job.id if isinstance(job, TrainRow) else "failed"
    text = f"{name}: status {job.status}: {job.message or 'no message'}"
    facts = {"state": "failed", "status": job.status, "message": job.message}
    return Row([*cells, Cell(text, facts, width - len(cells))], "failed")
