"""Draw the pictures of a report."""

from math import isfinite
from typing import Any, Dict, List, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import (
    HUES,
    INK,
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
from lstm_dist.experiments.report.formatters import capitalized, counted, milliseconds, number, percent, signed, size
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.forecast import Forecast
from lstm_dist.scaling.link_fits import AllreduceMeasurement, LinkFit
from lstm_dist.scaling.step_breakdown import StepBreakdown
from lstm_dist.scaling.summary import SCALING
from lstm_dist.scaling.throughput import FittedLaws, JobGroup
from lstm_dist.scaling.time_to_perplexity import TargetRuns

PREDICTED = "prediction, not measured"
_HUE = {"weak": HUES[0], "strong": HUES[1]}
_MARKER = {"weak": "o", "strong": "s"}
Line = Sequence[Tuple[int, float]]  # numbers of workers, and values

_PART_HUE = dict(zip(PARTS, (HUES[3], HUES[0], HUES[4], HUES[1], HUES[2])))


@styled
def throughput_figure(modes: Sequence[ModeFindings]) -> Picture:
    """Draw the throughput of both modes, and the ideal."""
    figure, axes = panel()
    axes.set_yscale("log")
    workers = _workers(modes)
    _draw_estimates(axes, modes, "chars_per_sec", _ideal_rates(modes))
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    log2_axis(axes, workers, "workers")
    axes.set_ylabel("characters per second")
    values = [(rate.group, number(rate.chars_per_sec.value)) for mode in modes for rate in mode.throughputs]
    label = f"Characters per second against workers. {_describe_values(values)}"
    return to_picture(figure, "Throughput of all workers together", label)


@styled
def efficiency_figure(modes: Sequence[ModeFindings]) -> Picture:
    """Draw the parallel efficiency of both modes, in percent."""
    figure, axes = panel()
    workers = _workers(modes)
    _draw_estimates(axes, modes, "efficiency", [[(n, 1.0) for n in workers]])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    log2_axis(axes, workers, "workers")
    axes.set_ylabel("efficiency (%)")
    values = [(rate.group, percent(rate.efficiency.value)) for mode in modes for rate in mode.throughputs]
    label = f"Efficiency against workers. {_describe_values(values)}"
    return to_picture(figure, "Efficiency: speedup over workers", label)


@styled
def speedup_figure(mode: ModeFindings) -> Picture:
    """Draw the speedup of one mode with its fitted laws."""
    figure, axes = panel()
    axes.set_yscale("log", base=2)
    workers = _workers([mode])
    _draw_estimates(axes, [mode], "speedup", [[(n, n) for n in workers]])
    _draw_laws(axes, mode.laws)
    log2_axis(axes, workers, "workers")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    first = mode.baseline
    axes.set_ylabel("speedup over one worker" if first == 1 else f"speedup ({first} for {first} workers)")
    values = [(rate.group, number(rate.speedup.value, 2)) for rate in mode.throughputs]
    label = f"Speedup against workers. {_describe_values(values)}"
    return to_picture(figure, f"{SCALING[mode.name]}: speedup", label)


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
    caption = f"{SCALING[mode.name]}: parts of a step"
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
def link_figures(fits: Sequence[LinkFit], gradients: int) -> List[Picture]:
    """Draw time against size, one panel per path with shared axes; `gradients` is the gradients' size in bytes."""
    times = [1000 * value for fit in fits for drawn in _drawn(fit) for value in (drawn.low, drawn.high)]
    return [_link_figure(fit, gradients, 0.7 * min(times), 1.4 * max(times)) for fit in fits if _drawn(fit)]


def _link_figure(fit: LinkFit, gradients: int, bottom: float, top: float) -> Picture:
    """Draw measured quartiles and fitted lines, with a colour and a marker per number of workers."""
    figure, axes = panel(3.4)
    for workers, hue, marker in _series(fit):
        rows = [drawn for drawn in _drawn(fit) if drawn.workers == workers]
        sizes, face = [row.bytes for row in rows], PAPER if rows[0].oversubscribed else hue
        medians, label = [1000 * row.median for row in rows], counted(workers, "worker")
        axes.plot(sizes, medians, marker, color=hue, markerfacecolor=face, markersize=5, label=label, zorder=3)
        axes.vlines(sizes, [1000 * row.low for row in rows], [1000 * row.high for row in rows], color=hue, linewidth=1)
        if fit.link and workers in fit.workers:
            line = np.geomspace(min(sizes), max(sizes), 200)
            axes.plot(line, [1000 * fit.link.seconds(workers, n) for n in line], color=hue, linewidth=1.2)
    add_hollow_legend(axes, any(measurement.oversubscribed for measurement in fit.measurements))
    _byte_axis(axes, gradients)
    axes.set_yscale("log")
    axes.set_ylim(bottom, top)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("time of an allreduce (ms)")
    largest = max(drawn.bytes for drawn in _drawn(fit))
    last = [drawn for drawn in _drawn(fit) if drawn.bytes == largest]
    values = ", ".join(f"{counted(row.workers, 'worker')} {milliseconds(row.median, 3)} ms" for row in last)
    label = f"Time of an allreduce against its size; lines are the fit. At {size(largest)}: {values}."
    return to_picture(figure, f"{capitalized(fit.name)}: measured (points) and fitted (lines)", label, columns=3)


@styled
def residuals_figure(fit: LinkFit, gradients: int) -> Picture:
    """Draw the relative residuals of the fit."""
    figure, axes = panel(2.9)
    fitted = [measurement for measurement in fit.measurements if isfinite(measurement.residual)]
    for workers, hue, marker in _series(fit):
        rows = [row for row in fitted if row.workers == workers]
        if rows:
            sizes, residuals = [row.bytes for row in rows], [100 * row.residual for row in rows]
            label = f"{workers} workers"
            axes.plot(sizes, residuals, f"{marker}-", color=hue, markersize=5, linewidth=0.8, label=label)
    axes.axhline(0, color=MUTED, linewidth=1)
    _byte_axis(axes, gradients)
    axes.set_ylabel("residual (%)")
    lowest, highest = (100 * extreme(row.residual for row in fitted) for extreme in (min, max))
    label = f"Residuals against size, from {signed(lowest)} to {signed(highest)} percent."
    return to_picture(figure, f"{capitalized(fit.name)}: residuals, measured / fitted − 1", label, columns=3)


@styled
def forecast_figure(mode: ModeFindings, forecast: Forecast) -> Picture:
    """Draw the step time: points where measured, dashed lines with a band where predicted."""
    figure, axes = panel()
    known = [rate for rate in mode.throughputs if not rate.group.oversubscribed]
    numbers, times = [rate.group.workers for rate in known], [1000 * rate.step for rate in known]
    axes.plot(numbers, times, _MARKER[mode.name], color=_HUE[mode.name], label="measured")
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
    caption = f"{SCALING[mode.name]}, beyond {counted(forecast.max_measured, 'worker')}: {PREDICTED}"
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
    draw_marks(
        axes, [Mark(x, estimate, hue, "o", is_hollow) for x, estimate, is_hollow in zip(streams, estimates, hollow)]
    )
    axes.plot(streams, [estimate.value for estimate in estimates], color=hue, linewidth=0.8)
    log2_axis(axes, streams, "global batch (streams)")
    axes.set_ylabel(label)
    add_hollow_legend(axes, any(hollow))
    description = ", ".join(f"{batch} streams: {found.value:,.3g}" for batch, found in zip(streams, estimates))
    return to_picture(figure, caption, f"{capitalized(label)} against the global batch. {description}.")


def _workers(modes: Sequence[ModeFindings]) -> List[int]:
    return sorted({rate.group.workers for mode in modes for rate in mode.throughputs})


def _ideal_rates(modes: Sequence[ModeFindings]) -> List[Line]:
    """Return the throughputs without loss; the modes have one line if their baselines are the same job."""
    lines: Dict[Tuple[int, int], Line] = {}
    for mode in modes:
        first, *_ = mode.throughputs
        rate = first.chars_per_sec.value / mode.baseline
        line = [(n, n * rate) for n in _workers(modes) if n >= mode.baseline]
        lines.setdefault((mode.baseline, first.group.streams), line)
    return list(lines.values())


def _draw_estimates(axes: Axes, modes: Sequence[ModeFindings], name: str, ideals: Sequence[Line]) -> None:
    """Draw one quantity of all throughputs, and lines of its ideal values."""
    marks = [
        Mark(rate.group.workers, getattr(rate, name), _HUE[mode.name], _MARKER[mode.name], rate.group.oversubscribed)
        for mode in modes
        for rate in mode.throughputs
    ]
    draw_marks(axes, marks, [value for line in ideals for _, value in line])
    for mode in modes:
        axes.plot([], [], _MARKER[mode.name], color=_HUE[mode.name], label=mode.name)
    add_hollow_legend(axes, any(mark.hollow for mark in marks))
    for line, label in zip(ideals, ("ideal", None)):
        axes.plot(*zip(*line), ":", color=INK, linewidth=1.2, label=label, zorder=1)


def _draw_laws(axes: Axes, laws: FittedLaws) -> None:
    """Draw the laws from the baseline to the largest fitted N."""
    for law, line, hue in ((laws.amdahl, "-", HUES[2]), (laws.usl, "--", HUES[3])):
        if law:
            workers = np.geomspace(law.baseline, laws.workers[-1], 21).tolist()
            axes.plot(workers, [law.speedup(n) for n in workers], line, color=hue, label=law.name, zorder=2)


def _drawn(fit: LinkFit) -> List[AllreduceMeasurement]:
    """Return the measurements to draw; with one worker, plain MPI is left out, as it only copies."""
    return [row for row in fit.measurements if row.workers > 1 or fit.path != "mpi"]


def _series(fit: LinkFit) -> "List[tuple[int, str, str]]":
    """Return the drawn numbers of workers, each with a colour and a marker."""
    numbers = sorted({row.workers for row in fit.measurements})
    drawn = {row.workers for row in _drawn(fit)}
    return [(n, HUES[k % len(HUES)], "osD^vPX"[k % 7]) for k, n in enumerate(numbers) if n in drawn]


def _byte_axis(axes: Axes, gradients: int) -> None:
    axes.set_xscale("log")
    if gradients:
        axes.axvline(gradients, color=MUTED, linewidth=1, linestyle=":", label="size of the gradients")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace("B", "").strip()))
    axes.set_xlabel("size of the buffer (bytes)")


def _describe_values(values: "Sequence[tuple[JobGroup, str]]") -> str:
    return "; ".join(f"{group.mode}, {counted(group.workers, 'worker')}: {text}" for group, text in values) + "."
