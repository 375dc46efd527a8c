"""Cells and rows that several tables share; the facts of a cell keep the unrounded values."""

from typing import List, Union

from lstm_dist.experiments.report.document import Cell, Row
from lstm_dist.experiments.report.formatters import number
from lstm_dist.scaling.records import AllreduceRow, TrainRow


def count_cell(name: str, value: int) -> Cell:
    """Return a cell with a count."""
    return Cell(number(value), {name: value})


def group_cells(mode: str, workers: int, streams: int) -> List[Cell]:
    """Return the first three cells of a row about training jobs."""
    return [Cell(mode, {"mode": mode}), count_cell("workers", workers), count_cell("streams", streams)]


def mark(oversubscribed: bool) -> str:
    """Return the mark of a row, which is also the text of its last cell."""
    return "oversubscribed" if oversubscribed else ""


def failed_row(job: Union[TrainRow, AllreduceRow], cells: List[Cell], width: int) -> Row:
    """Return a row of `width` columns with the error message of a failed job after `cells`."""
    name = job.id if isinstance(job, TrainRow) else "failed"
    text = f"{name}: status {job.status}: {job.message or 'no message'}"
    facts = {"state": "failed", "status": job.status, "message": job.message}
    return Row([*cells, Cell(text, facts, width - len(cells))], "failed")
