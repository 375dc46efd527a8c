"""Draw the pictures of a report."""

from math import isfinite, log2
from typing import Any, Dict, List, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import (
    HUES,
    INK,
    MUTED,
    PAPER,
    doubling_axis,
    explain_hollow,
    finished,
    panel,
    point,
    styled,
)
from lstm_dist.experiments.report.formatters import capital, counted, milliseconds, number, percent, signed, size
from lstm_dist.experiments.stats import Estimate
from lstm_dist.scaling.analysis import Mode
from lstm_dist.scaling.forecast import Forecast
from lstm_dist.scaling.link_fits import Measured, Wire
from lstm_dist.scaling.step_breakdown import PARTS, TimeSplit
from lstm_dist.scaling.summary import SCALING
from lstm_dist.scaling.throughput import Group, Laws
from lstm_dist.scaling.time_to_perplexity import Reach

PREDICTED = "prediction, not measured"
_HUE = {"weak": HUES[0], "strong": HUES[1]}
_MARKER = {"weak": "o", "strong": "s"}
_OF_PART = dict(zip(PARTS, (HUES[3], HUES[0], HUES[4], HUES[1], HUES[2])))


@styled
def of_throughput(modes: Sequence[Mode]) -> Picture:
    """Draw the throughput of both modes, and the ideal."""
    figure, axes = panel()
    for mode in modes:
        _estimates(axes, mode, [one.chars_per_sec for one in mode.throughputs])
    single = [one for mode in modes for one in mode.throughputs if one.group.workers == 1]
    workers = _workers(modes)
    if single:
        _ideal(axes, workers, [n * single[0].chars_per_sec.value for n in workers])
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: number(value)))
    axes.yaxis.set_minor_locator(NullLocator())
    doubling_axis(axes, workers, "workers")
    axes.set_ylabel("characters a second")
    told = [(one.group, number(one.chars_per_sec.value)) for mode in modes for one in mode.throughputs]
    return finished(figure, "Throughput of all workers together", f"Characters a second against workers. {_told(told)}")


@styled
def of_efficiency(modes: Sequence[Mode]) -> Picture:
    """Draw the parallel efficiency of both modes, in percent."""
    figure, axes = panel()
    for mode in modes:
        _estimates(axes, mode, [one.efficiency for one in mode.throughputs], 100)
    workers = _workers(modes)
    _ideal(axes, workers, [100] * len(workers))
    doubling_axis(axes, workers, "workers")
    axes.set_ylabel("efficiency (%)")
    axes.set_ylim(bottom=0)
    told = [(one.group, percent(one.efficiency.value)) for mode in modes for one in mode.throughputs]
    return finished(figure, "Efficiency: speedup over workers", f"Efficiency against workers. {_told(told)}")


@styled
def of_speedup(mode: Mode) -> Picture:
    """Draw the speedup of one mode with its fitted laws."""
    figure, axes = panel()
    _estimates(axes, mode, [one.speedup for one in mode.throughputs])
    workers = _workers([mode])
    _ideal(axes, workers, workers)
    _curves(axes, mode.laws)
    doubling_axis(axes, workers, "workers")
    axes.set_yscale("log", base=2)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("speedup (times one worker)")
    told = [(one.group, number(one.speedup.value, 2)) for one in mode.throughputs]
    return finished(figure, f"{SCALING[mode.name]}: speedup", f"Speedup against workers. {_told(told)}")


@styled
def of_times(mode: Mode) -> Picture:
    """Draw one bar per number of workers, stacked from the five parts of a step."""
    figure, axes = panel(1.5 + 0.5 * len(mode.splits))
    for place, split in enumerate(mode.splits):
        _bar(axes, place, split, named=place == 0)
    axes.set_yticks(range(len(mode.splits)), [_tick(split.group) for split in mode.splits])
    axes.invert_yaxis()
    axes.grid(visible=False, axis="y")
    axes.set_xlim(0, 100)
    axes.set_xlabel("share of a step (%), and its time (ms)")
    told = [
        f"{counted(split.group.workers, 'worker')}: "
        + ", ".join(f"{part} {milliseconds(split.parts[part].mean, 1)} ms" for part in PARTS)
        for split in mode.splits
    ]
    caption = f"{SCALING[mode.name]}: where the time of a step goes"
    return finished(figure, caption, f"Stacked bars. {'. '.join(told)}.", columns=len(PARTS))


def _tick(group: Group) -> str:
    mark = "\noversubscribed" if group.oversubscribed else ""
    return f"{counted(group.workers, 'worker')}{mark}"


def _bar(axes: Axes, place: int, split: TimeSplit, named: bool) -> None:
    """Draw one stacked bar, hatched if oversubscribed."""
    left = 0.0
    for part in PARTS:
        width = 100 * split.parts[part].mean / split.total
        fill: Dict[str, Any] = {"color": _OF_PART[part]}
        if split.group.oversubscribed:
            fill = {"facecolor": PAPER, "edgecolor": _OF_PART[part], "hatch": "////", "linewidth": 1.0}
        axes.barh(place, width, left=left, height=0.62, label=part if named else None, **fill)
        left += width
    axes.text(102, place, f"{milliseconds(split.total, 1)} ms", verticalalignment="center", fontsize=9.5)


@styled
def of_wires(wires: Sequence[Wire], gradients: int) -> List[Picture]:
    """Draw time against size, one panel per path with shared axes; `gradients` is the gradients' size in bytes."""
    times = [1000 * value for wire in wires for one in _drawn(wire) for value in (one.low, one.high)]
    return [_wire(wire, gradients, 0.7 * min(times), 1.4 * max(times)) for wire in wires if _drawn(wire)]


def _wire(wire: Wire, gradients: int, least: float, most: float) -> Picture:
    """Draw measured quartiles and fitted lines, with a colour and a marker per number of workers."""
    figure, axes = panel(3.4)
    for workers, hue, marker in _series(wire):
        rows = [one for one in _drawn(wire) if one.workers == workers]
        sizes, face = [one.bytes for one in rows], PAPER if rows[0].oversubscribed else hue
        middles, label = [1000 * one.median for one in rows], counted(workers, "worker")
        axes.plot(sizes, middles, marker, color=hue, markerfacecolor=face, markersize=5, label=label, zorder=3)
        axes.vlines(sizes, [1000 * one.low for one in rows], [1000 * one.high for one in rows], color=hue, linewidth=1)
        if wire.link and workers in wire.workers:
            along = np.geomspace(min(sizes), max(sizes), 200)
            axes.plot(along, [1000 * wire.link.seconds(workers, n) for n in along], color=hue, linewidth=1.2)
    explain_hollow(axes, any(one.oversubscribed for one in wire.measured))
    _byte_axis(axes, gradients)
    axes.set_yscale("log")
    axes.set_ylim(least, most)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("time of an allreduce (ms)")
    last = [one for one in _drawn(wire) if one.bytes == max(one.bytes for one in _drawn(wire))]
    told = ", ".join(f"{counted(one.workers, 'worker')} {milliseconds(one.median, 3)} ms" for one in last)
    said = f"Time of an allreduce against its size; lines are the fit. At {size(last[0].bytes)}: {told}."
    return finished(figure, f"{capital(wire.name)}: measured (points) and fitted (lines)", said, columns=3)


@styled
def of_residuals(wire: Wire, gradients: int) -> Picture:
    """Draw the relative residuals of the fit."""
    figure, axes = panel(2.9)
    fitted = [one for one in wire.measured if isfinite(one.residual)]
    for workers, hue, marker in _series(wire):
        rows = [one for one in fitted if one.workers == workers]
        if rows:
            sizes, off, label = [one.bytes for one in rows], [100 * one.residual for one in rows], f"{workers} workers"
            axes.plot(sizes, off, f"{marker}-", color=hue, markersize=5, linewidth=0.8, label=label)
    axes.axhline(0, color=MUTED, linewidth=1)
    _byte_axis(axes, gradients)
    axes.set_ylabel("residual (%)")
    least, most = (100 * extreme(one.residual for one in fitted) for extreme in (min, max))
    said = f"Residuals against size, from {signed(least)} to {signed(most)} percent."
    return finished(figure, f"{capital(wire.name)}: residuals, measured / fitted − 1", said, columns=3)


@styled
def of_forecast(mode: Mode, forecast: Forecast) -> Picture:
    """Draw the step time: points where measured, dashed lines with a band where predicted."""
    figure, axes = panel()
    known = [one for one in mode.throughputs if not one.group.oversubscribed]
    numbers, took = [one.group.workers for one in known], [1000 * one.step for one in known]
    axes.plot(numbers, took, _MARKER[mode.name], color=_HUE[mode.name], label="measured")
    far = [step.workers for step in forecast.far]
    low, middle, high = ([1000 * value for value in values] for values in list(zip(*forecast.far))[1:])
    axes.fill_between(far, low, high, color=HUES[4], alpha=0.25, linewidth=0, label="its band")
    axes.plot(far, middle, "--", color=HUES[4], label=PREDICTED)
    axes.axvspan(forecast.measured, far[-1], color=MUTED, alpha=0.06, linewidth=0)
    doubling_axis(axes, [*numbers, *far], "workers")
    axes.set_ylim(0, 1.1 * max(*took, *high))
    axes.set_ylabel("time of a step (ms)")
    last = forecast.far[-1]
    said = (
        f"Time of a step against workers, measured to {forecast.measured}, beyond that a prediction: at "
        f"{last.workers:,} workers {milliseconds(last.middle, 1)} ms, in a band from {milliseconds(last.low, 1)} to "
        f"{milliseconds(last.high, 1)}."
    )
    caption = f"{SCALING[mode.name]}, beyond {counted(forecast.measured, 'worker')}: {PREDICTED}"
    return finished(figure, caption, said)


@styled
def of_reaches(reaches: Sequence[Reach]) -> List[Picture]:
    """Draw characters to the target, characters per second, and seconds, each in its own panel."""
    panels = (
        ("chars", "characters to the target (millions)", 1e-6, "Statistical efficiency: characters needed", HUES[2]),
        ("chars_per_sec", "characters a second (thousands)", 1e-3, "Hardware efficiency: characters a second", HUES[0]),
        ("seconds", "time to the target (s)", 1.0, "Both together: time to perplexity", HUES[3]),
    )
    return [_reach(reaches, *one) for one in panels]


def _reach(reaches: Sequence[Reach], name: str, label: str, scale: float, caption: str, hue: str) -> Picture:
    """Draw one quantity against the global batch; the characters needed do not depend on the cores."""
    figure, axes = panel()
    reached = [reach for reach in reaches if reach.repeats]
    streams = [reach.streams for reach in reached]
    values = [[scale * value for value in getattr(reach, name)] for reach in reached]
    for reach, value in zip(reached, values):
        point(axes, reach.streams, value, hue, "o", reach.oversubscribed and name != "chars")
    axes.plot(streams, [value for value, *_ in values], color=hue, linewidth=0.8)
    doubling_axis(axes, streams, "global batch (streams)")
    axes.set_ylim(bottom=0)
    axes.set_ylabel(label)
    explain_hollow(axes, name != "chars" and any(reach.oversubscribed for reach in reached))
    told = ", ".join(f"{batch} streams: {value:,.3g}" for batch, (value, *_) in zip(streams, values))
    return finished(figure, caption, f"{capital(label)} against the global batch. {told}.")


def _workers(modes: Sequence[Mode]) -> List[int]:
    return sorted({one.group.workers for mode in modes for one in mode.throughputs})


def _estimates(axes: Axes, mode: Mode, estimates: Sequence[Estimate], scale: float = 1) -> None:
    hue, marker = _HUE[mode.name], _MARKER[mode.name]
    for one, estimate in zip(mode.throughputs, estimates):
        if isfinite(estimate.value):
            values = [scale * value for value in estimate]
            point(axes, one.group.workers, values, hue, marker, one.group.oversubscribed)
    axes.plot([], [], marker, color=hue, label=mode.name)
    explain_hollow(axes, any(one.group.oversubscribed for one in mode.throughputs))


def _ideal(axes: Axes, workers: Sequence[int], values: Sequence[float]) -> None:
    axes.plot(workers, values, ":", color=INK, linewidth=1.2, label="ideal", zorder=1)


def _curves(axes: Axes, laws: Laws) -> None:
    """Draw the laws from one worker to the largest fitted N."""
    for law, line, hue in ((laws.amdahl, "-", HUES[2]), (laws.usl, "--", HUES[3])):
        if law:
            along = [2 ** (step / 20 * log2(laws.workers[-1])) for step in range(21)]
            axes.plot(along, [law.speedup(n) for n in along], line, color=hue, label=law.name, zorder=2)


def _drawn(wire: Wire) -> List[Measured]:
    """Return the sizes to draw; with one worker, plain MPI is left out, as it only copies."""
    return [one for one in wire.measured if one.workers > 1 or wire.path != "mpi"]


def _series(wire: Wire) -> "List[tuple[int, str, str]]":
    """Return the drawn numbers of workers, each with a colour and a marker."""
    numbers = sorted({one.workers for one in wire.measured})
    drawn = {one.workers for one in _drawn(wire)}
    return [(n, HUES[k % len(HUES)], "osD^vPX"[k % 7]) for k, n in enumerate(numbers) if n in drawn]


def _byte_axis(axes: Axes, gradients: int) -> None:
    axes.set_xscale("log")
    if gradients:
        axes.axvline(gradients, color=MUTED, linewidth=1, linestyle=":", label="the gradients")
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: size(value).replace("B", "").strip()))
    axes.set_xlabel("size of the buffer (bytes)")


def _told(values: "Sequence[tuple[Group, str]]") -> str:
    return "; ".join(f"{group.mode}, {counted(group.workers, 'worker')}: {text}" for group, text in values) + "."
