"""Tables of what training costs, and of what the measurement has cost."""

from math import isfinite
from typing import List, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate_cells
from lstm_dist.experiments.report.formatters import decimals, number
from lstm_dist.experiments.stats import Estimate
from lstm_dist.scaling.cost import Cost
from lstm_dist.scaling.tables.cells import count_cell, group_cells, mark, mode_cell


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return one row per mode and number of workers; without the columns of energy if it is unknown for all."""
    has_energy = _has_energy(costs)
    columns = ["mode", "workers", "streams", "hosts", "cores", "hours", "node-hours", "95 %", "core-hours"]
    columns += ["chars/node-hour", *(["chars/J", "95 %"] if has_energy else []), ""]
    caption = "Cost of training on 10⁹ characters, without starts"
    return Table(caption, columns, [_cost_row(cost, has_energy) for cost in costs], "cost.csv")


def _cost_row(cost: Cost, has_energy: bool) -> Row:
    group, text = cost.group, mark(cost.group.oversubscribed)
    return Row(
        [
            mode_cell(group.mode, group.series),
            count_cell("workers", group.workers),
            count_cell("streams", group.streams),
            count_cell("hosts", cost.hosts),
            count_cell("cores", cost.cores),
            _cell("hours", cost.hours.value),
            *_cells("node_hours", cost.node_hours),
            _cell("core_hours", cost.core_hours.value),
            _cell("chars_per_node_hour", cost.chars_per_node_hour.value),
            *(_cells("chars_per_joule", cost.chars_per_joule) if has_energy else []),
            Cell(text, {"oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def spent_table(costs: Sequence[Cost]) -> Table:
    """Return one row per mode and number of workers; without the column of energy if it is unknown for all."""
    has_energy = _has_energy(costs)
    columns = ["mode", "workers", "streams", "jobs", "node-hours", "core-hours", *(["J per job"] if has_energy else [])]
    caption = "Spent by all jobs of a point, with their starts"
    return Table(caption, columns, [_spent_row(cost, has_energy) for cost in costs], "spent.csv", collapsed=True)


def _spent_row(cost: Cost, has_energy: bool) -> Row:
    group = cost.group
    cells = [
        *group_cells(group),
        count_cell("streams", group.streams),
        count_cell("jobs", len(group.rows)),
        _cell("node_hours", cost.spent.node_hours),
        _cell("core_hours", cost.spent.core_hours),
    ]
    return Row([*cells, *([_cell("joules_per_job", cost.joules)] if has_energy else [])], mark(group.oversubscribed))


def _has_energy(costs: Sequence[Cost]) -> bool:
    return any(isfinite(cost.joules) for cost in costs)


def _cell(name: str, value: float) -> Cell:
    """Return a cell with three significant digits."""
    return Cell(number(value, decimals(value)), {name: value})


def _cells(name: str, value: Estimate) -> List[Cell]:
    """Return the two cells of an estimate, with three significant digits of its value."""
    return estimate_cells(name, value, decimals(value.value))
