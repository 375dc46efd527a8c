"""Fits of costs: exact without noise, never negative, and refused if measurements are invalid or insufficient."""

import math

import numpy as np
import pytest

from lstm_dist.experiments.fitting import fit_costs, require_positive

CALLS, BYTES = [1.0, 1.0, 1.0], [1e3, 1e6, 1e9]


def test_costs_of_very_different_magnitude_are_fitted_exactly():
    measured = [1e-4 + size * 3e-10 for size in BYTES]
    costs = fit_costs({"call": CALLS, "byte": BYTES}, measured)
    assert costs == {"call": pytest.approx(1e-4, rel=1e-9), "byte": pytest.approx(3e-10, rel=1e-9)}


def test_known_base_cost_is_subtracted():
    assert fit_costs({"byte": [1, 2]}, [5.0, 7.0], base=3.0) == {"byte": pytest.approx(2.0)}
    assert fit_costs({"byte": [1, 2]}, [5.0, 7.0], base=[4.0, 5.0]) == {"byte": pytest.approx(1.0)}


def test_fit_minimizes_relative_errors():
    """Measurements of 1 and of 2 per piece have equal weight, although they differ in the number of pieces."""
    assert fit_costs({"piece": [1, 1000]}, [1.0, 2000.0])["piece"] == pytest.approx(1.2)  # least sum (c / c_i - 1)^2


def test_costs_are_not_negative():
    costs = fit_costs({"call": [1, 1, 1], "byte": [1, 2, 3]}, [1.0, 3.0, 5.0])  # -1 + 2 x
    assert costs["call"] == 0.0
    assert costs["byte"] == pytest.approx(sum(x / y for x, y in ((1, 1), (2, 3), (3, 5))) / (1 + 4 / 9 + 9 / 25))


@pytest.mark.parametrize("bad", [[], [math.nan], [1.0, math.nan], [math.inf], [0.0], [-1.0]])
def test_measured_values_must_be_finite_and_positive(bad):
    with pytest.raises(ValueError, match="numbers above 0"):
        require_positive(bad)
    with pytest.raises(ValueError, match="numbers above 0"):
        fit_costs({"call": [1.0] * len(bad)}, bad)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_columns_must_be_finite(bad):
    with pytest.raises(ValueError, match="call, byte: each should occur a finite number"):
        fit_costs({"call": [1, 1], "byte": [1, bad]}, [1.0, 2.0])


@pytest.mark.parametrize(
    "columns",
    [
        {"call": [1.0], "byte": [1.0]},
        {"call": [1, 1, 1], "byte": [7, 7, 7]},
        {"call": [1, 1, 1], "byte": [0, 0, 0]},
        {"call": [1, 1, 1], "byte": [1, 2, 3], "both": [2, 3, 4]},
    ],
    ids=["one point", "one size", "never", "a sum of others"],
)
def test_undetermined_costs_are_refused(columns):
    points = len(columns["call"])
    with pytest.raises(ValueError, match=f"{points} measurements do not determine call, byte"):
        fit_costs(columns, np.arange(1.0, points + 1))


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="dimension"):
        fit_costs({"call": [1, 1]}, [1.0])
