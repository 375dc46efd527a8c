"""Draw the ratio of two experiments."""

from typing import Sequence

from matplotlib.ticker import FuncFormatter

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import (
    HUES,
    INK,
    Mark,
    add_hollow_legend,
    draw_marks,
    log2_axis,
    panel,
    styled,
    to_picture,
)
from lstm_dist.experiments.report.formatters import counted, number
from lstm_dist.scaling.comparison.points import PointComparison


@styled
def ratio_figure(series: str, points: Sequence[PointComparison]) -> Picture:
    """Draw the ratio of throughputs of one series against the number of workers, with a line at 1."""
    figure, axes = panel()
    workers = [point.groups[0].workers for point in points]
    marks = [Mark(n, point.ratio, HUES[0], "o", point.oversubscribed) for n, point in zip(workers, points)]
    draw_marks(axes, marks, [1.0])
    axes.axhline(1, color=INK, linestyle=":", linewidth=1.2, label="no difference")
    add_hollow_legend(axes, any(mark.hollow for mark in marks))
    log2_axis(axes, workers, "workers")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("characters/s, B over A")
    values = "; ".join(
        f"{counted(n, 'worker')}: {number(point.ratio.value, 3)}, {point.verdict}" for n, point in zip(workers, points)
    )
    return to_picture(figure, f"{series}: ratio of throughputs", f"Ratio against workers. {values}.")
