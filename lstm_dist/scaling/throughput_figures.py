"""Draw throughput, efficiency and speedup."""

from typing import Dict, List, Sequence, Tuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator, PercentFormatter

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
from lstm_dist.experiments.report.formatters import capitalized, counted, number, percent
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.looks import Look, mode_look, series_look
from lstm_dist.scaling.summary import SCALING
from lstm_dist.scaling.throughput import FittedLaws, JobGroup

Line = Sequence[Tuple[int, float]]  # numbers of workers, and values


def compared(modes: Sequence[ModeFindings]) -> List[List[ModeFindings]]:
    """Return what shares a picture: both modes or, if there are several series, the series of a mode."""
    if len({mode.series for mode in modes}) < 2:
        return [list(modes)]
    names = dict.fromkeys(mode.name for mode in modes)
    return [[mode for mode in modes if mode.name == name] for name in names]


def _looks(modes: Sequence[ModeFindings]) -> List[Look]:
    """Return one look per entry: those of the modes, or of the series."""
    if any(mode.series for mode in modes):
        return [series_look(place, mode.series) for place, mode in enumerate(modes)]
    return [mode_look(mode) for mode in modes]


def _caption(modes: Sequence[ModeFindings], text: str) -> str:
    """Return a caption that begins with the mode if the picture compares its series."""
    return f"{SCALING[modes[0].name]}: {text}" if modes[0].series else capitalized(text)


@styled
def throughput_figure(modes: Sequence[ModeFindings]) -> Picture:
    """Draw the throughput of both modes or of the series of one, and the ideal."""
    figure, axes = _panel(modes)
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
    return to_picture(figure, _caption(modes, "throughput of all workers together"), label, _legend_columns(modes))


@styled
def efficiency_figure(modes: Sequence[ModeFindings]) -> Picture:
    """Draw the parallel efficiency of both modes or of the series of one, in percent."""
    figure, axes = _panel(modes)
    workers = _workers(modes)
    _draw_estimates(axes, modes, "efficiency", [[(n, 1.0) for n in workers]])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, symbol=""))
    log2_axis(axes, workers, "workers")
    axes.set_ylabel("efficiency (%)")
    values = [(rate.group, percent(rate.efficiency.value)) for mode in modes for rate in mode.throughputs]
    label = f"Efficiency against workers. {_describe_values(values)}"
    return to_picture(figure, _caption(modes, "efficiency, speedup over workers"), label, _legend_columns(modes))


def speedup_figures(modes: Sequence[ModeFindings]) -> List[Picture]:
    """Draw one picture per mode with several numbers of workers, with the fitted laws of an only series."""
    several = [mode for mode in modes if len(mode.throughputs) > 1]
    names = dict.fromkeys(mode.name for mode in several)
    return [_speedup_figure([mode for mode in several if mode.name == name]) for name in names]


@styled
def _speedup_figure(series: Sequence[ModeFindings]) -> Picture:
    figure, axes = _panel(series)
    axes.set_yscale("log", base=2)
    workers, mode = _workers(series), series[0]
    _draw_estimates(axes, series, "speedup", [[(n, n) for n in workers]])
    if len(series) == 1:
        _draw_laws(axes, mode.laws)
    log2_axis(axes, workers, "workers")
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel(_speedup_label(sorted({one.baseline for one in series})))
    values = [(rate.group, number(rate.speedup.value, 2)) for mode in series for rate in mode.throughputs]
    label = f"Speedup against workers. {_describe_values(values)}"
    return to_picture(figure, f"{SCALING[mode.name]}: speedup", label, _legend_columns(series))


def _speedup_label(baselines: Sequence[int]) -> str:
    first, *others = baselines
    if others:
        return "speedup (N at a baseline of N workers)"
    return "speedup over one worker" if first == 1 else f"speedup ({first} for {first} workers)"


def _workers(modes: Sequence[ModeFindings]) -> List[int]:
    return sorted({rate.group.workers for mode in modes for rate in mode.throughputs})


def _ideal_rates(modes: Sequence[ModeFindings]) -> List[Line]:
    """Return the throughputs without loss; the modes have one line if their baselines are the same job.

    Of several series, the first has a line.
    """
    lines: Dict[Tuple[int, int], Line] = {}
    for mode in modes[:1] if modes[0].series else modes:
        first, *_ = mode.throughputs
        rate = first.chars_per_sec.value / mode.baseline
        line = [(n, n * rate) for n in _workers(modes) if n >= mode.baseline]
        lines.setdefault((mode.baseline, first.group.streams), line)
    return list(lines.values())


def _draw_estimates(axes: Axes, modes: Sequence[ModeFindings], name: str, ideals: Sequence[Line]) -> None:
    """Draw one quantity of all throughputs, and lines of its ideal values."""
    looks = _looks(modes)
    marks = [
        Mark(rate.group.workers, getattr(rate, name), look.hue, look.marker, rate.group.oversubscribed)
        for mode, look in zip(modes, looks)
        for rate in mode.throughputs
    ]
    draw_marks(axes, marks, [value for line in ideals for _, value in line])
    for mode, look in zip(modes, looks):
        axes.plot([], [], f"{look.marker}{'-' if mode.series else ''}", color=look.hue, linewidth=0.8, label=look.label)
        if mode.series:
            points = [(rate.group.workers, getattr(rate, name).value) for rate in mode.throughputs]
            axes.plot(*zip(*points), color=look.hue, linewidth=0.8)
    add_hollow_legend(axes, any(mark.hollow for mark in marks))
    ideal = ", ".join(filter(None, ("ideal", modes[0].series if name == "chars_per_sec" else "")))
    for line, label in zip(ideals, (ideal, None)):
        axes.plot(*zip(*line), ":", color=INK, linewidth=1.2, label=label, zorder=1)


def _draw_laws(axes: Axes, laws: FittedLaws) -> None:
    """Draw the laws from the baseline to the largest fitted N."""
    for law, line, hue in ((laws.amdahl, "-", HUES[2]), (laws.usl, "--", HUES[3])):
        if law:
            workers = np.geomspace(law.baseline, laws.workers[-1], 21).tolist()
            axes.plot(workers, [law.speedup(n) for n in workers], line, color=hue, label=law.name, zorder=2)


def _describe_values(values: "Sequence[tuple[JobGroup, str]]") -> str:
    return "; ".join(f"{group.title}, {counted(group.workers, 'worker')}: {text}" for group, text in values) + "."


def _panel(modes: Sequence[ModeFindings]) -> "tuple[Figure, Axes]":
    """Return an empty panel, higher by the legend of several series."""
    return panel(3.2 + 0.2 * (len(modes) // _legend_columns(modes)))


def _legend_columns(modes: Sequence[ModeFindings]) -> int:
    """Return how many names of the legend fit beside each other."""
    longest = max(len(mode.series) for mode in modes)
    return 4 if longest < 10 else 2 if longest < 25 else 1
