"""One panel and what is drawn on it: for light and dark pages at once, as its colours are the page's variables.

It is narrow, so that a telephone shows its text at the size of the words around it.
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

# Colours that nothing else has, and the variables of page.html.j2 that take their places.
INK, MUTED, GRID, PAPER = "#010203", "#010204", "#010205", "#010206"
HUES = ("#0102f1", "#0102f2", "#0102f3", "#0102f4", "#0102f5")
_VARIABLES = dict(zip((INK, MUTED, GRID, PAPER), ("ink", "muted", "grid", "paper")))
_VARIABLES.update(zip(HUES, ("one", "two", "three", "four", "five")))
# Around every function that draws.
styled = mpl.rc_context(
    {
        "svg.fonttype": "none",
        "svg.hashsalt": "laboratory",
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
    """An empty one; `height` in inches, of which it is 4.4 wide."""
    figure = Figure(figsize=(4.4, height), layout="constrained")
    return figure, figure.subplots()


def doubling_axis(axes: Axes, numbers: Sequence[int], label: str) -> None:
    """Horizontal and logarithmic, with a tick at each number, named at every other where there are many."""
    ticks = sorted(set(numbers))
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, labels=[f"{n:,}" if len(ticks) < 8 or k % 2 == 0 else "" for k, n in enumerate(ticks)])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.set_xlabel(label)
    axes.margins(x=0.07)


def point(axes: Axes, x: float, estimate: Sequence[float], hue: str, marker: str, hollow: bool) -> None:
    """A value with its interval."""
    value, low, high = estimate
    if isfinite(low + high):
        axes.errorbar(x, value, [[value - low], [high - value]], color=hue, capsize=3, linewidth=1.2)
    axes.plot(x, value, marker, color=hue, markerfacecolor=PAPER if hollow else hue, markeredgewidth=1.4, zorder=3)


def explain_hollow(axes: Axes, needed: bool) -> None:
    """What hollow markers are, in the legend, once."""
    if needed and "oversubscribed" not in axes.get_legend_handles_labels()[1]:
        axes.plot([], [], "o", color=MUTED, markerfacecolor=PAPER, markeredgewidth=1.4, label="oversubscribed")


def finished(figure: Figure, caption: str, label: str, columns: int = 4) -> Picture:
    """The legend goes above the panel, where it covers nothing."""
    handles, names = figure.axes[0].get_legend_handles_labels()
    if names:
        figure.legend(handles, names, ncols=columns, loc="outside upper left")
    text = StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    return Picture(caption, label, _inline(text.getvalue(), caption))


def _inline(svg: str, caption: str) -> str:
    """The drawing among others on a page: its ids are of its caption, its size, letters and colours the page's."""
    svg = re.sub(r"<metadata>.*?</metadata>|<style.*?</style>", "", svg[svg.index("<svg") :], flags=re.DOTALL)
    svg = re.sub(r' (width|height)="[\d.]+pt"', "", svg, count=2)
    svg = re.sub(r"'DejaVu Sans'[^;\"]*", "var(--letters)", svg)
    own = f"p{crc32(caption.encode()):08x}-"
    svg = re.sub(r'(\bid="|href="#|url\(#)', rf"\1{own}", svg)
    return re.sub("|".join(_VARIABLES), lambda found: f"var(--{_VARIABLES[found.group()]})", svg)
