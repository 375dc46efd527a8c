"""Draw the course of a run over time: its workers, its steps, and what was lost."""

from typing import List, Sequence, Tuple

from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator, StrMethodFormatter

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import HUES, MUTED, PAPER, panel, styled, to_picture
from lstm_dist.experiments.report.formatters import counted
from lstm_dist.run.goodput import AttemptCourse
from lstm_dist.run.phase_clock import STARTING

_UNITS = ((2 * 86400.0, 3600.0, "hours"), (180.0, 60.0, "minutes"), (0.0, 1.0, "seconds"))  # least length, unit, name
_POINTS = 400  # of a line, which has no more pixels


@styled
def workers_figure(attempts: Sequence[AttemptCourse]) -> Picture:
    """Draw the number of workers over time, the starts, and the time of lost steps."""
    figure, axes = panel(2.6)
    first, unit = attempts[0].began, _time_axis(axes, attempts)
    for name, hue, spans in (
        ("training", HUES[0], [_training(attempt) for attempt in attempts]),
        ("starting", HUES[4], [(attempt.began, attempt.seconds[STARTING]) for attempt in attempts]),
        ("steps lost", HUES[1], [(a.ended - a.lost_seconds, a.lost_seconds) for a in attempts]),
    ):
        shown = [(span, attempt.workers) for span, attempt in zip(spans, attempts) if span[1] > 0]
        begins = [(begin - first) / unit for (begin, _), _ in shown]
        widths = [seconds / unit for (_, seconds), _ in shown]
        if shown:
            axes.bar(begins, [workers for _, workers in shown], widths, align="edge", color=hue, label=name)
    starts = [(attempt.began - first) / unit for attempt in attempts]
    axes.vlines(starts[1:], 0, [attempt.workers for attempt in attempts[1:]], color=PAPER, linewidth=0.6)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.set_ylabel("workers")
    axes.grid(visible=False, axis="x")
    axes.set_ylim(0, 1.08 * max([1, *(attempt.workers for attempt in attempts)]))
    courses = "; ".join(
        f"from {start:.1f}: {counted(attempt.workers, 'worker')}, {counted(attempt.lost_steps, 'step')} lost"
        for start, attempt in list(zip(starts, attempts))[:50]
    )
    return to_picture(figure, "Workers over time", f"Workers by {axes.get_xlabel()}, {courses}")


@styled
def steps_figure(attempts: Sequence[AttemptCourse]) -> Picture:
    """Draw the steps done over time: the line falls where steps were lost."""
    figure, axes = panel(2.6)
    first, unit = attempts[0].began, _time_axis(axes, attempts)
    for attempt in attempts:
        begin = (attempt.began + attempt.seconds[STARTING], attempt.first_step)
        points = [begin, *_thinned([point for point in attempt.course if point[0] >= begin[0]])]
        axes.plot([(time - first) / unit for time, _ in points], [step for _, step in points], color=HUES[0])
    for before, after in zip(attempts, attempts[1:]):
        ends = (before.ended, after.began + after.seconds[STARTING])
        steps = (before.step, after.first_step)
        axes.plot([(time - first) / unit for time in ends], steps, ":", color=MUTED, linewidth=1.2)
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5, integer=True))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.set_ylabel("steps done")
    axes.set_ylim(0, 1.08 * max([1, *(attempt.step for attempt in attempts)]))
    label = f"Steps done by {axes.get_xlabel()}: {attempts[-1].step:,} at the end. Dotted lines join two attempts."
    return to_picture(figure, "Steps over time", label)


def _time_axis(axes: Axes, attempts: Sequence[AttemptCourse]) -> float:
    """Label the x axis in hours, minutes or seconds, and return the unit in seconds."""
    seconds = max(attempt.ended for attempt in attempts) - attempts[0].began
    unit, name = next((unit, name) for least, unit, name in _UNITS if seconds >= least)
    axes.set_xlabel(f"{name} since the first start")
    axes.set_xlim(0, max(seconds, 1e-3) / unit)
    return unit


def _training(attempt: AttemptCourse) -> Tuple[float, float]:
    """Return when an attempt began to train, and for how many seconds it did."""
    starting = attempt.seconds[STARTING]
    return attempt.began + starting, attempt.ended - attempt.began - starting


def _thinned(points: List[Tuple[float, int]]) -> List[Tuple[float, int]]:
    """Return at most _POINTS points, among them the last one."""
    stride = -(-len(points) // _POINTS) or 1
    return points[::-1][::stride][::-1]
