"""Table of the efficiency tree, and of what its factors mean."""

from typing import NamedTuple, Optional, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table
from lstm_dist.experiments.report.formatters import number
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.efficiency_tree import ACCEPTABLE, EfficiencyTree
from lstm_dist.scaling.tables.cells import group_cells, mark

POOR = 0.6  # below it a loss is as large as two acceptable ones


class Meaning(NamedTuple):
    """What an efficiency measures, and what to do if it is low."""

    label: str
    measures: str
    remedy: str


MEANINGS = {
    "global_efficiency": Meaning(
        "global", "Parallel efficiency times computation scaling.", "Look at the lower one of the two."
    ),
    "parallel_efficiency": Meaning(
        "parallel",
        "Load balance times serialization times transfer: the share of a step in which a worker does useful work "
        "(data, compute, update), and neither waits nor communicates.",
        "Look at the lowest of the three.",
    ),
    "load_balance": Meaning(
        "load balance",
        "The useful time of an average worker, divided by that of the worker that is slowest on average. It is low if "
        "the same workers are slower than others in all steps.",
        "Give all workers equal cores on hosts that no other program uses, and a number of streams that the number of "
        "workers divides. The slowest rank is named in the next section.",
    ),
    "serialization": Meaning(
        "serialization",
        "The useful time of the worker that is slowest on average, divided by that of the slowest one of each step. It "
        "is low if workers are slow in different steps, as all wait for the slowest one of each step.",
        "Remove what interrupts workers now and then: other programs on their cores, more threads than cores, power "
        "saving. The distribution of step times shows the slow steps.",
    ),
    "transfer": Meaning(
        "transfer",
        "The useful time of the slowest worker of each step, divided by the sum of it and the communication. It is low "
        "if averaging the gradients takes much of a step.",
        "Use larger steps (more streams per worker, a longer window), a faster network, or --wire-dtype float16, which "
        "halves the bytes sent.",
    ),
    "computation_scaling": Meaning(
        "computation scaling",
        "The useful time of a stream, summed over the workers, in the baseline, divided by that in this job. It is low "
        "if workers share memory and caches, or if a part of a step, such as the update, does not shrink with the "
        "streams of a worker.",
        "Use more streams per worker, or fewer workers per host.",
    ),
}


def efficiency_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", *(meaning.label for meaning in MEANINGS.values()), "lowest factor", ""]
    rows = [_efficiency_row(tree) for mode in modes for tree in mode.trees]
    return Table("Efficiency and its factors, in %", columns, rows, "efficiency.csv")


def _efficiency_row(tree: EfficiencyTree) -> Row:
    group, text = tree.group, mark(tree.group.oversubscribed)
    return Row(
        [
            *group_cells(group),
            *(_shaded_cell(name, getattr(tree, name)) for name in MEANINGS),
            _lowest_cell(tree.lowest_factor),
            Cell(text, {"baseline_workers": tree.baseline.workers, "oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def _shaded_cell(name: str, value: float) -> Cell:
    shade = "good" if value >= ACCEPTABLE else "fair" if value >= POOR else "poor"
    return Cell(number(100 * value, 1), {f"{name}_percent": 100 * value}, shade=shade)


def _lowest_cell(name: Optional[str]) -> Cell:
    return Cell(MEANINGS[name].label if name else "–", {"lowest_factor": name or ""})


def factors_table() -> Table:
    """Return one row per efficiency, with its meaning."""
    rows = [Row([Cell(text) for text in meaning]) for meaning in MEANINGS.values()]
    return Table("What each efficiency means", ["efficiency", "what it measures", "if it is low"], rows, wraps=True)
