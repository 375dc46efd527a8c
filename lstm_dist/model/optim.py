"""Gradient clipping by the global norm and the SGD update, on the device without a transfer to the host."""

from typing import Tuple

import mxnet as mx


def clip_by_global_norm(gradient: mx.nd.NDArray, max_norm: float) -> Tuple[mx.nd.NDArray, mx.nd.NDArray]:
    """Return the global gradient norm and the clipping factor min(max_norm / norm, 1) (Pascanu et al. 2013).

    `sgd_update_` applies the factor, which saves a pass over the gradient.

    Args:
        gradient: all gradients as one vector, (n,).
        max_norm: theta.

    Returns:
        The norm before clipping and the factor, (1,) each, on the device; computed asynchronously.
    """
    norm = mx.nd.sqrt(mx.nd.dot(gradient, gradient))
    return norm, mx.nd.minimum(max_norm / norm, 1.0)


def sgd_update_(
    parameters: mx.nd.NDArray, gradient: mx.nd.NDArray, learning_rate: float, factor: mx.nd.NDArray
) -> None:
    """Subtract learning_rate * factor * gradient from the parameters, in place and in one pass.

    Args:
        parameters: any shape.
        gradient: the same shape, not changed.
        learning_rate: the step size.
        factor: (1,), from `clip_by_global_norm`.
    """
    # BLAS gemm of a 1 x 1 matrix and a row, added to a row: MXNet's only in-place update whose rate is on the device,
    # and the fastest.
    rate, row = (-learning_rate * factor).reshape((1, 1)), (1, -1)
    mx.nd.linalg.gemm(rate, gradient.reshape(row), parameters.reshape(row), beta=1.0, out=parameters.reshape(row))


def sgd_update_rows_(
    matrix: mx.nd.NDArray, rows: mx.nd.NDArray, gradient: mx.nd.NDArray, learning_rate: float, factor: mx.nd.NDArray
) -> None:
    """Update some rows of a matrix as `sgd_update_` does; the others are neither read nor written.

    Args:
        matrix: (m, n).
        rows: (k,), distinct row numbers.
        gradient: (k, n), of these rows.
        learning_rate: the step size.
        factor: (1,), from `clip_by_global_norm`.
    """
    updated = mx.nd.take(matrix, rows)
    sgd_update_(updated, gradient, learning_rate, factor)
    mx.nd._internal._scatter_set_nd(matrix, updated, rows.reshape((1, -1)), shape=matrix.shape, out=matrix)
