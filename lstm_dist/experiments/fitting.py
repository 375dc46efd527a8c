"""Least squares for measured costs: non-negative, for no cost is less than nothing, and of relative errors.

Relative, because a microsecond and a second are measured to about the same percentage: the largest must not decide
alone.
"""

from typing import Dict, Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.optimize import nnls

_SAME = 1e-9  # how nearly columns of length 1 depend on each other before nothing tells their costs apart


def positive(values: ArrayLike) -> np.ndarray:
    """The values as float64.

    Raises:
        ValueError: when there is none, or one that is nan, infinite or not above 0; or when rows differ in length.
    """
    array = np.asarray(values, dtype=np.float64)
    if not array.size or not (np.isfinite(array) & (array > 0)).all():
        raise ValueError(f"measured {array.tolist()}: should be numbers above 0, at least one; leave out what failed")
    return array


def fit_costs(columns: Mapping[str, Sequence[float]], measured: Sequence[float], base: float = 0.0) -> Dict[str, float]:
    """The costs c >= 0 that minimise the sum of ((base + sum_k c_k column_k) / measured - 1)^2 (Lawson, Hanson 1974).

    Args:
        columns: how often each cost, by its name, occurs in each measurement.
        measured: one a measurement, above 0.
        base: what each measurement holds besides.

    Returns:
        The costs by their names, in the unit of `measured`.

    Raises:
        ValueError: when a number is unusable, or when the measurements do not determine every cost.
    """
    sizes = positive(measured)
    table = np.column_stack([sizes, *columns.values()]) / sizes[:, None]
    if not np.isfinite(table).all():
        raise ValueError(f"{', '.join(columns)}: each should occur a finite number of times in a measurement")
    rows = table[:, 1:]
    lengths = np.linalg.norm(rows, axis=0)
    # Columns of length 1: seconds a call and seconds a byte are many powers of ten apart.
    scaled = rows / np.where(lengths > 0, lengths, 1.0)
    if np.linalg.matrix_rank(scaled, tol=_SAME) < len(columns):
        raise ValueError(
            f"{len(sizes)} measurements do not determine {', '.join(columns)}: measure more numbers of workers or sizes"
        )
    costs, _ = nnls(scaled, 1.0 - base / sizes)
    return dict(zip(columns, (costs / lengths).tolist()))
