"""Draw the parts of a step, the predictions, and the time to perplexity."""

from typing import Any, Dict, List, Sequence

from matplotlib.axes import Axes

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import (
    HUES,
    MUTED,
    PAPER,
    Mark,
    add_hollow_legend,
    draw_marks,
    log2_axis,
    panel,
    styled,
    to_picture,
)
from lstm_dist.experiments.report.formatters import capitalized, counted, milliseconds
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.forecast import Forecast
from lstm_dist.scaling.looks import Look, mode_look, series_look
from lstm_dist.scaling.step_breakdown import StepBreakdown
from lstm_dist.scaling.summary import full_name
from lstm_dist.scaling.throughput import JobGroup
from lstm_dist.scaling.time_to_perplexity import TargetRuns

PREDICTED = "prediction, not measured"
_PART_HUE = dict(zip(PARTS, (HUES[3], HUES[0], HUES[4], HUES[1], HUES[2])))


@styled
def step_times_figure(mode: ModeFindings) -> Picture:
    """Draw one bar per number of workers, stacked from the five parts of a step."""
    figure, axes = panel(1.5 + 0.5 * len(mode.breakdowns))
    for position, breakdown in enumerate(mode.breakdowns):
        _draw_bar(axes, position, breakdown, with_labels=position == 0)
    axes.set_yticks(range(len(mode.breakdowns)), [group_tick(breakdown.group) for breakdown in mode.breakdowns])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of a step (%), and its time (ms)")
    values = [
        f"{counted(breakdown.group.workers, 'worker')}: "
        + ", ".join(f"{LABELS[part]} {milliseconds(breakdown.parts[part].mean, 1)} ms" for part in PARTS)
        for breakdown in mode.breakdowns
    ]
    caption = f"{capitalized(full_name(mode))}: parts of a step"
    return to_picture(figure, caption, f"Stacked bars. {'. '.join(values)}.", columns=3)


def group_tick(group: JobGroup) -> str:
    """Return the label of a group on an axis."""
    suffix = "\noversubscribed" if group.oversubscribed else ""
    return f"{counted(group.workers, 'worker')}{suffix}"


def _draw_bar(axes: Axes, position: int, breakdown: StepBreakdown, with_labels: bool) -> None:
    """Draw one stacked bar, hatched if oversubscribed."""
    left = 0.0
    for part in PARTS:
        width = 100 * breakdown.parts[part].mean / breakdown.total
        fill: Dict[str, Any] = {"color": _PART_HUE[part]}
        if breakdown.group.oversubscribed:
            fill = {"facecolor": PAPER, "edgecolor": _PART_HUE[part], "hatch": "////", "linewidth": 1.0}
        axes.barh(position, width, left=left, height=0.62, label=LABELS[part] if with_labels else None, **fill)
        left += width
    axes.text(102, position, f"{milliseconds(breakdown.total, 1)} ms", verticalalignment="center", fontsize=9.5)


@styled
def forecast_figure(mode: ModeFindings, forecast: Forecast) -> Picture:
    """Draw the step time: points where measured, dashed lines with a band where predicted."""
    figure, axes = panel()
    known = [rate for rate in mode.throughputs if not rate.group.oversubscribed]
    numbers, times = [rate.group.workers for rate in known], [1000 * rate.step for rate in known]
    look = mode_look(mode)
    axes.plot(numbers, times, look.marker, color=look.hue, label="measured")
    predicted = [point.workers for point in forecast.points]
    edges = ("low", "middle", "high")
    low, middle, high = ([1000 * getattr(point, edge) for point in forecast.points] for edge in edges)
    axes.fill_between(predicted, low, high, color=HUES[4], alpha=0.25, linewidth=0, label="its band")
    axes.plot(predicted, middle, "--", color=HUES[4], label=PREDICTED)
    axes.axvspan(forecast.max_measured, predicted[-1], color=MUTED, alpha=0.06, linewidth=0)
    log2_axis(axes, [*numbers, *predicted], "workers")
    axes.set_ylim(0, 1.1 * max(*times, *high))
    axes.set_ylabel("time of a step (ms)")
    last = forecast.points[-1]
    label = (
        f"Time of a step against workers, measured up to {forecast.max_measured}, predicted beyond: at "
        f"{last.workers:,} workers {milliseconds(last.middle, 1)} ms, in a band from {milliseconds(last.low, 1)} to "
        f"{milliseconds(last.high, 1)} ms."
    )
    caption = f"{capitalized(full_name(mode))}, beyond {counted(forecast.max_measured, 'worker')}: {PREDICTED}"
    return to_picture(figure, caption, label)


@styled
def target_figures(target_runs: Sequence[TargetRuns]) -> List[Picture]:
    """Draw characters to the target, characters per second, and seconds, each in its own panel."""
    reached = [runs for runs in target_runs if runs.reached]
    panels = (
        ("chars", "characters to target (millions)", 1e-6, "Statistical efficiency: characters to target", HUES[2]),
        ("chars_per_sec", "characters/s (thousands)", 1e-3, "Hardware efficiency: characters per second", HUES[0]),
        ("seconds", "time to target (s)", 1.0, "Both combined: time to target", HUES[3]),
    )
    return [_target_figure(reached, name, label, scale, caption, hue) for name, label, scale, caption, hue in panels]


def _target_figure(
    reached: Sequence[TargetRuns], name: str, label: str, scale: float, caption: str, hue: str
) -> Picture:
    """Draw one quantity against the global batch; the characters to the target do not depend on the cores."""
    figure, axes = panel()
    streams = [runs.streams for runs in reached]
    estimates = [getattr(runs, name).scaled(scale) for runs in reached]
    hollow = [runs.oversubscribed and name != "chars" for runs in reached]
    series = list(dict.fromkeys(runs.series for runs in reached))
    looks = [series_look(place, text) for place, text in enumerate(series)] if len(series) > 1 else [Look(hue, "o", "")]
    look = dict(zip(series, looks))
    marks = [
        Mark(runs.streams, estimate, look[runs.series].hue, look[runs.series].marker, is_hollow)
        for runs, estimate, is_hollow in zip(reached, estimates, hollow)
    ]
    draw_marks(axes, marks)
    for text in series:
        line = [(mark.x, mark.estimate.value) for runs, mark in zip(reached, marks) if runs.series == text]
        style = f"{look[text].marker}-" if text else "-"
        axes.plot(*zip(*line), style, color=look[text].hue, linewidth=0.8, label=look[text].label or None)
    log2_axis(axes, streams, "global batch (streams)")
    axes.set_ylabel(label)
    add_hollow_legend(axes, any(hollow))
    names = [", ".join(filter(None, (runs.series, f"{runs.streams} streams"))) for runs in reached]
    description = ", ".join(f"{name}: {found.value:,.3g}" for name, found in zip(names, estimates))
    return to_picture(figure, caption, f"{capitalized(label)} against the global batch. {description}.")
