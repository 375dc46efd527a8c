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
        parameters: (n,).
        gradient: (n,), not changed.
        learning_rate: the step size.
        factor: (1,), from `clip_by_global_norm`.
    """
    # BLAS gemm of a 1 x 1 matrix and a row, added to a row: MXNet's only in-place update whose rate is on the device,
    # and the fastest.
    rate, row = (-learning_rate * factor).reshape((1, 1)), (1, -1)
    mx.nd.linalg.gemm(rate, gradient.reshape(row), parameters.reshape(row), beta=1.0, out=parameters.reshape(row))
