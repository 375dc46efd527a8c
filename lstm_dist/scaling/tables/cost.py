"""Table of what training costs."""

from math import isfinite
from typing import List, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate_cells
from lstm_dist.experiments.report.formatters import decimals, number
from lstm_dist.experiments.stats import Estimate
from lstm_dist.scaling.cost import Cost
from lstm_dist.scaling.tables.cells import count_cell, group_cells, mark


def cost_table(costs: Sequence[Cost]) -> Table:
    """Return one row per mode and number of workers; without the columns of energy if it is unknown for all."""
    has_energy = any(isfinite(cost.joules) for cost in costs)
    columns = ["mode", "workers", "streams", "hosts", "cores", "jobs", "node-hours spent", "core-hours spent"]
    columns += ["hours", "node-hours", "95 %", "core-hours", "characters per node-hour"]
    columns += ["J per job", "characters per J", "95 %"] if has_energy else []
    caption = (
        "Cost: of all jobs of a point, with their starts (spent), and of training on 10⁹ characters, without starts"
    )
    return Table(caption, [*columns, ""], [_cost_row(cost, has_energy) for cost in costs], "cost.csv")


def _cost_row(cost: Cost, has_energy: bool) -> Row:
    group, text = cost.group, mark(cost.group.oversubscribed)
    energy = [_cell("joules_per_job", cost.joules), *_cells("chars_per_joule", cost.chars_per_joule)]
    return Row(
        [
            *group_cells(group.mode, group.workers, group.streams),
            count_cell("hosts", cost.hosts),
            count_cell("cores", cost.cores),
            count_cell("jobs", len(group.rows)),
            _cell("node_hours_spent", cost.spent.node_hours),
            _cell("core_hours_spent", cost.spent.core_hours),
            _cell("hours", cost.hours.value),
            *_cells("node_hours", cost.node_hours),
            _cell("core_hours", cost.core_hours.value),
            _cell("chars_per_node_hour", cost.chars_per_node_hour.value),
            *(energy if has_energy else []),
            Cell(text, {"oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def _cell(name: str, value: float) -> Cell:
    """Return a cell with three significant digits."""
    return Cell(number(value, decimals(value)), {name: value})


def _cells(name: str, value: Estimate) -> List[Cell]:
    """Return the two cells of an estimate, with three significant digits of its value."""
    return estimate_cells(name, value, decimals(value.value))
