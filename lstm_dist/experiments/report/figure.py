"""Draw one-panel SVG figures, whose colours are CSS variables of the page, to fit light and dark themes.

Panels are narrow, so that on a phone their text is as large as the surrounding text.
"""

import re
from io import StringIO
from math import isfinite
from typing import NamedTuple, Sequence
from zlib import crc32

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import NullLocator

from lstm_dist.experiments.report.document import Picture
from lstm_dist.experiments.stats import Estimate

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


class Mark(NamedTuple):
    """An estimate in a picture.

    Attributes:
        hollow: whether the marker is hollow, which stands for oversubscribed jobs.
    """

    x: float
    estimate: Estimate
    hue: str
    marker: str
    hollow: bool = False

    @property
    def has_interval(self) -> bool:
        """Return whether the interval is drawn; with two repeats it would be wider than most pictures."""
        return len(self.estimate.repeats) > 2 and isfinite(self.estimate.low + self.estimate.high)


def draw_marks(axes: Axes, marks: Sequence[Mark], others: Sequence[float] = ()) -> None:
    """Draw values with their intervals, or with their repeats if there are fewer than three.

    The y axis follows the values, the repeats and `others`, which are drawn elsewhere. It starts at zero unless it is
    logarithmic. An interval that leaves the picture is cut, and ends with an arrow.
    """
    drawn = [mark for mark in marks if isfinite(mark.estimate.value)]
    _set_limits(axes, drawn, others)
    for mark in drawn:
        if mark.has_interval:
            _draw_interval(axes, mark)
        else:
            repeats = mark.estimate.repeats
            axes.plot([mark.x] * len(repeats), repeats, "_", color=mark.hue, markersize=9, markeredgewidth=1.2)
        face = PAPER if mark.hollow else mark.hue
        axes.plot(
            mark.x,
            mark.estimate.value,
            mark.marker,
            color=mark.hue,
            markerfacecolor=face,
            markeredgewidth=1.4,
            zorder=3,
        )


def _set_limits(axes: Axes, marks: Sequence[Mark], others: Sequence[float]) -> None:
    """Set the limits of the y axis, with room for intervals that are no wider than the rest of the picture."""
    shown = [*others, *(value for mark in marks for value in (mark.estimate.value, *mark.estimate.repeats))]
    if not shown:
        return
    ends = [end for mark in marks if mark.has_interval for end in (mark.estimate.low, mark.estimate.high)]
    is_log = axes.get_yscale() == "log"
    room = 2.0 if is_log else 1.3
    low = max(min([*shown, *ends]), min(shown) / room)
    high = min(max([*shown, *ends]), max(shown) * room)
    axes.set_ylim(low / 1.25 if is_log else 0, high * (1.25 if is_log else 1.08))


def _draw_interval(axes: Axes, mark: Mark) -> None:
    """Draw an interval with a bar at each end, or an arrow where it leaves the picture."""
    bottom, top = axes.get_ylim()
    low, high = max(mark.estimate.low, bottom), min(mark.estimate.high, top)
    axes.plot([mark.x, mark.x], [low, high], color=mark.hue, linewidth=1.2)
    for end, cut, arrow in ((low, mark.estimate.low < bottom, "v"), (high, mark.estimate.high > top, "^")):
        axes.plot(mark.x, end, arrow if cut else "_", color=mark.hue, markersize=6, clip_on=False)


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
