"""The colours, markers and names of what shares a picture."""

from typing import NamedTuple

from lstm_dist.experiments.report.figure import HUES
from lstm_dist.scaling.analysis import ModeFindings

_MODES = {"weak": (HUES[0], "o"), "strong": (HUES[1], "s")}
_MARKERS = "osD^vPX"


class Look(NamedTuple):
    """How the measurements of a mode or series are drawn, and their name in the legend."""

    hue: str
    marker: str
    label: str


def mode_look(mode: ModeFindings) -> Look:
    """Return the look of a mode beside the other mode."""
    return Look(*_MODES[mode.name], mode.name)


def series_look(place: int, series: str) -> Look:
    """Return the look of a series beside others; no two of the first 35 have the same."""
    return Look(HUES[place % len(HUES)], _MARKERS[place % len(_MARKERS)], series)
