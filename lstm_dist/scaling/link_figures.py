"""Draw the measured allreduces and the fitted links."""

from math import isfinite
from typing import List, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.report.figure import (
    HUES,
    MUTED,
    PAPER,
    add_hollow_legend,
    panel,
    styled,
    to_picture,
)
from lstm_dist.experiments.report.formatters import capitalized, counted, milliseconds, signed, size
from lstm_dist.scaling.link_fits import AllreduceMeasurement, LinkFit


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
