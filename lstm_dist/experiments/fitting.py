"""Fit measured costs by non-negative least squares of the relative errors.

Errors are relative because short and long times are measured with about the same relative precision; absolute errors
would let the longest dominate.
"""

from typing import Dict, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

_RANK_TOLERANCE = 1e-9  # unit-length columns closer to linear dependence do not determine their costs separately


def require_positive(values: ArrayLike) -> np.ndarray:
    """Return the values as float64.

    Raises:
        ValueError: if `values` is empty or ragged, or has a value that is nan, infinite or not above 0.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"measured {array.tolist()}: should be numbers above 0, at least one; leave out failed jobs")
    return array


def fit_costs(
    columns: Mapping[str, Sequence[float]], measured: Sequence[float], base: ArrayLike = 0.0
) -> Dict[str, float]:
    """Find costs c >= 0 that minimise the sum of ((base + sum_k c_k column_k) / measured - 1)^2 (Lawson, Hanson 1974).

    Args:
        columns: how often each cost occurs in each measurement, by cost name.
        measured: measured values, above 0.
        base: known part of every measurement, or of each.

    Returns:
        The costs by name, in the unit of `measured`.

    Raises:
        ValueError: if a number is invalid, or if the measurements do not determine every cost.
    """
    sizes = require_positive(measured)
    table = np.column_stack([sizes, *columns.values()]) / sizes[:, None]
    if not np.isfinite(table).all():
        raise ValueError(f"{', '.join(columns)}: each should occur a finite number of times in a measurement")
    rows = table[:, 1:]
    lengths = np.linalg.norm(rows, axis=0)
    # Normalize the columns: seconds per call and seconds per byte differ by many orders of magnitude.
    scaled = rows / np.where(lengths > 0, lengths, 1.0)
    if np.linalg.matrix_rank(scaled, tol=_RANK_TOLERANCE) < len(columns):
        raise ValueError(
            f"{len(sizes)} measurements do not determine {', '.join(columns)}: measure more numbers of workers or sizes"
        )
    costs, _ = nnls(scaled, 1.0 - np.asarray(base) / sizes)
    return dict(zip(columns, (costs / lengths).tolist()))
