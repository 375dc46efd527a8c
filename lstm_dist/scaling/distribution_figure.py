"""Draw the distribution of step times, one line per number of workers."""

from math import isfinite
from typing import Sequence, Tuple

from matplotlib.axes import Axes

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import HUES, INK, MUTED, panel, styled, to_picture
from lstm_dist.experiments.report.formatters import capitalized, counted, milliseconds
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.figures import group_tick
from lstm_dist.scaling.step_distribution import Distribution
from lstm_dist.scaling.summary import full_name

_ROOM = 1.5  # how far the axis goes beyond what most steps take


@styled
def distribution_figure(mode: ModeFindings) -> Picture:
    """Draw fastest to slowest step, the middle half and the 95th percentile, in percent of the median.

    The axis ends at 1.5 times what most steps take, and a line that goes on ends with an arrow. The time of the
    slowest step is written beside it.
    """
    distributions = [one.whole for one in mode.distributions]
    figure, axes = panel(1.6 + 0.42 * len(distributions))
    left, right = axis_limits(distributions)
    for position, times in enumerate(distributions):
        _draw_line(axes, position, times, right)
        text = f"{milliseconds(times.slowest, 1)} ms"
        axes.text(right + 0.04 * (right - left), position, text, verticalalignment="center", fontsize=9.5)
    _add_legend(axes, any(isfinite(times.percentile_95) for times in distributions))
    axes.set_yticks(range(len(distributions)), [group_tick(one.group) for one in mode.distributions])
    axes.set_ylim(len(distributions) - 0.4, -0.6)
    axes.grid(visible=False, axis="y")
    axes.set_xlim(left, right)
    axes.set_xlabel("time of a step / median (%), and the slowest")
    values = [
        f"{counted(one.group.workers, 'worker')}: median {milliseconds(one.whole.median, 1)} ms, slowest "
        f"{milliseconds(one.whole.slowest, 1)} ms"
        for one in mode.distributions
    ]
    caption = f"{capitalized(full_name(mode))}: distribution of step times"
    return to_picture(figure, caption, f"Lines from the fastest to the slowest step. {'. '.join(values)}.", columns=3)


def axis_limits(distributions: Sequence[Distribution]) -> Tuple[float, float]:
    """Return the ends of the axis, in percent of the median; at least 90 and 110, so that equal steps look equal."""
    slowest = max(times.slowest / times.median for times in distributions)
    most = max(_most(times) / times.median for times in distributions)
    fastest = min(times.fastest / times.median for times in distributions)
    return 100 * min(0.9, fastest - 0.02), 100 * max(1.1, min(slowest + 0.02, _ROOM * most))


def _most(times: Distribution) -> float:
    """Return the time within which most steps end: the 95th percentile, or the upper quartile of few steps."""
    return times.percentile_95 if isfinite(times.percentile_95) else times.upper_quartile


def _draw_line(axes: Axes, position: int, times: Distribution, right: float) -> None:
    fastest, quartile, median, upper_quartile, high, _, slowest = (100 * t / times.median for t in times[1:])
    rows, is_cut = [position, position], slowest > right
    axes.plot([fastest, min(slowest, right)], rows, color=MUTED, linewidth=1.2)
    axes.plot(right if is_cut else slowest, position, ">" if is_cut else "|", color=MUTED, clip_on=False)
    axes.plot([quartile, upper_quartile], rows, color=HUES[0], linewidth=9, solid_capstyle="butt")
    axes.plot(high, position, "D", color=HUES[1], markersize=4.5, zorder=3)
    axes.plot(median, position, "|", color=INK, markersize=13, markeredgewidth=2, zorder=3)


def _add_legend(axes: Axes, has_percentiles: bool) -> None:
    axes.plot([], [], color=MUTED, linewidth=1.2, label="fastest to slowest")
    axes.plot([], [], color=HUES[0], linewidth=7, solid_capstyle="butt", label="middle half")
    axes.plot([], [], "|", color=INK, markersize=11, markeredgewidth=2, label="median")
    if has_percentiles:
        axes.plot([], [], "D", color=HUES[1], markersize=4.5, label="95th percentile")
