"""Pictures of estimates: axes follow the measured points, whatever the intervals are."""

import itertools
from typing import List, Tuple

import pytest
from matplotlib.axes import Axes

from lstm_dist.experiments.report.figure import HUES, Mark, draw_marks, panel
from lstm_dist.experiments.stats import UNKNOWN, Estimate, mean


def drawn(marks: List[Mark], others: Tuple[float, ...] = (), scale: str = "linear") -> Axes:
    _, axes = panel()
    axes.set_yscale(scale)
    draw_marks(axes, marks, others)
    return axes


def marks_of(*values: List[float]) -> List[Mark]:
    return [Mark(2**k, mean(repeats), HUES[0], "o") for k, repeats in enumerate(values)]


def markers(axes: Axes, kind: str) -> List[Tuple[float, float]]:
    lines = [line for line in axes.lines if line.get_marker() == kind]
    return [(x, y) for line in lines for x, y in zip(line.get_xdata(), line.get_ydata())]


@pytest.mark.parametrize("scale", ["linear", "log"])
@pytest.mark.parametrize("noise", [1.01, 1.5, 4.0])
def test_two_noisy_repeats_are_drawn_as_points_and_do_not_stretch_the_axis(noise: float, scale: str):
    axes = drawn(marks_of([1000, 1000 * noise], [1900, 1900 * noise]), (1000.0, 2000.0), scale)
    bottom, top = axes.get_ylim()
    assert top <= 1.3 * max(1900 * noise, 2000)
    assert bottom == 0 if scale == "linear" else bottom >= 1000 / 1.3
    assert markers(axes, "_") == [(1, 1000), (1, 1000 * noise), (2, 1900), (2, 1900 * noise)]


def test_an_interval_that_leaves_the_picture_ends_with_an_arrow():
    """Of three repeats with one outlier, the interval is from 29 to 460,000."""
    (mark,) = marks_of([1000, 1000, 50_000])
    for scale in ("linear", "log"):
        axes = drawn([mark], scale=scale)
        bottom, top = axes.get_ylim()
        assert top < 130_000
        assert (1, top) in markers(axes, "^")
        assert (1, bottom) in markers(axes, "v") or scale == "linear"


def test_a_narrow_interval_is_drawn_with_both_ends():
    (mark,) = marks_of([98, 100, 102])
    axes = drawn([mark], (200.0,))
    assert markers(axes, "_") == [(1, mark.estimate.low), (1, mark.estimate.high)]
    assert not markers(axes, "^")
    assert axes.get_ylim() == (0, pytest.approx(216))


@pytest.mark.parametrize(("repeats", "numbers"), itertools.product((1, 2, 3), (1, 2, 6)))
def test_every_value_is_inside(repeats: int, numbers: int):
    values = [[100.0 * (n + 1) * (1 + 0.3 * r) for r in range(repeats)] for n in range(numbers)]
    for scale in ("linear", "log"):
        axes = drawn(marks_of(*values), scale=scale)
        bottom, top = axes.get_ylim()
        assert all(bottom < value < top for one in values for value in one)
        assert len(markers(axes, "o")) == numbers


def test_a_value_that_was_not_measured_is_left_out():
    axes = drawn([Mark(1, UNKNOWN, HUES[0], "o"), Mark(2, Estimate(3.0, 3.0, 3.0), HUES[0], "o")])
    assert markers(axes, "o") == [(2, 3.0)]
    assert drawn([Mark(1, UNKNOWN, HUES[0], "o")]).get_ylim() == (0, 1)
