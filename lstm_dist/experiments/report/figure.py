"""Draw one-panel SVG figures, whose colours are CSS variables of the page, to fit light and dark themes.

Panels are narrow, so that on a phone their text is as large as the surrounding text.
"""

import re
from io import StringIO
from math import isfinite
from typing import Sequence
from zlib import crc32

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lstm_dist.experiments.report.document import Picture

# Placeholder colours, each replaced by the CSS variable of page.html.j2 that it stands for.
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
HUES = ("#0102f1", "#0102f2", "#0102f3", "#0102f4", "#0102f5")
_VARIABLES = dict(zip((INK, MUTED, GRID, PAPER), ("ink", "muted", "grid", "paper")))
_VARIABLES.update(zip(HUES, ("one", "two", "three", "four", "five")))
# Wraps every drawing function.
styled = mpl.rc_context(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "report",
        "font.size": 10.5,
        "axes.labelsize": 10.5,
        "axes.edgecolor": MUTED,
        "axes.labelcolor": INK,
        "axes.facecolor": "none",
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": GRID,
        "grid.linewidth": 0.7,
        "figure.facecolor": "none",
        "text.color": INK,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "hatch.linewidth": 0.8,
        "legend.frameon": False,
        "legend.fontsize": 9.5,
        "legend.handlelength": 1.5,
        "legend.handletextpad": 0.5,
        "legend.columnspacing": 1.1,
        "legend.borderpad": 0.1,
        "lines.linewidth": 1.6,
        "lines.markersize": 6,
    }
)


def panel(height: float = 3.2) -> "tuple[Figure, Axes]":
    """Return an empty panel, 4.4 inches wide and `height` inches high."""
    figure = Figure(figsize=(4.4, height), layout="constrained")
    return figure, figure.subplots()


def log2_axis(axes: Axes, numbers: Sequence[int], label: str) -> None:
    """Set up a logarithmic x axis with a tick at each number; if there are many, only every other one is labelled."""
    ticks = sorted(set(numbers))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, labels=[f"{n:,}" if len(ticks) < 8 or k % 2 == 0 else "" for k, n in enumerate(ticks)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.margins(x=0.07)


def start_at_zero(axes: Axes) -> None:
    """Start the y axis at zero, and leave room above the largest value for its marker."""
    axes.set_ylim(0, 1.08 * axes.dataLim.ymax)


def draw_estimate(axes: Axes, x: float, estimate: Sequence[float], hue: str, marker: str, hollow: bool) -> None:
    """Draw a value with its confidence interval; hollow markers stand for oversubscribed jobs."""
    value, low, high = estimate
    if isfinite(low + high):
        axes.errorbar(x, value, [[value - low], [high - value]], color=hue, capsize=3, linewidth=1.2)
    axes.plot(x, value, marker, color=hue, markerfacecolor=PAPER if hollow else hue, markeredgewidth=1.4, zorder=3)


def add_hollow_legend(axes: Axes, needed: bool) -> None:
    """Add one legend entry that explains hollow markers, if needed."""
    if needed and "oversubscribed" not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], "o", color=MUTED, markerfacecolor=PAPER, markeredgewidth=1.4, label="oversubscribed")


def to_picture(figure: Figure, caption: str, label: str, columns: int = 4) -> Picture:
    """Return the figure as a picture, with the legend above the panel, where it covers no data."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, ncols=columns, loc="outside upper left")
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return Picture(caption, label, _inline(text.getvalue(), caption))


def _inline(svg: str, caption: str) -> str:
    """Adapt the SVG for embedding: ids unique by caption, and the page's size, fonts and colours."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--letters)", svg)
    prefix = f"p{crc32(caption.encode()):08x}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{prefix}", svg)
    return re.sub("|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found.group()]})", svg)
