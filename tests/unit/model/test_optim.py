"""Clipping of gradient norms at, below and above the threshold, and the SGD update."""

import numpy as np
import pytest
from mxnet import nd

from lstm_dist.model.optim import clip_by_global_norm, sgd_update_


@pytest.mark.parametrize(
    ("max_norm", "factor"),
    [(5.0, 1.0), (4.999, 4.999 / 5), (2.5, 0.5), (50.0, 1.0)],
    ids=["at", "just above", "above", "below"],
)
def test_norm_and_clip_factor_are_exact(max_norm, factor):
    norm, clip = clip_by_global_norm(nd.array([3.0, 0.0, -4.0]), max_norm)
    assert norm.asscalar() == pytest.approx(5.0, rel=1e-6)
    assert clip.asscalar() == pytest.approx(factor, rel=1e-6)


def test_zero_gradient_leaves_the_parameters_unchanged():
    parameters, gradient = nd.array([1.0, 2.0]), nd.zeros(2)
    _, factor = clip_by_global_norm(gradient, 5.0)
    sgd_update_(parameters, gradient, 0.1, factor)
    np.testing.assert_array_equal(parameters.asnumpy(), [1.0, 2.0])


def test_norm_of_a_long_vector_is_accurate():
    values = np.random.default_rng(0).normal(size=2_000_003)
    norm, _ = clip_by_global_norm(nd.array(values), 5.0)
    assert norm.asscalar() == pytest.approx(np.linalg.norm(values), rel=1e-5)


def test_update_applies_the_clip_and_keeps_the_gradient():
    rng = np.random.default_rng(1)
    parameters, gradient = rng.normal(size=11).astype(np.float32), rng.normal(size=11).astype(np.float32)
    device_parameters, device_gradient = nd.array(parameters), nd.array(gradient)
    _, factor = clip_by_global_norm(device_gradient, 0.5)
    sgd_update_(device_parameters, device_gradient, 0.1, factor)
    clipped = gradient * min(0.5 / np.linalg.norm(gradient), 1)
    np.testing.assert_allclose(device_parameters.asnumpy(), parameters - 0.1 * clipped, rtol=1e-6)
    np.testing.assert_array_equal(device_gradient.asnumpy(), gradient)


def test_clipping_does_not_hide_a_non_finite_gradient():
    parameters = nd.array([1.0, 2.0])
    gradient = nd.array([1.0, np.nan])
    norm, factor = clip_by_global_norm(gradient, 5.0)
    sgd_update_(parameters, gradient, 0.1, factor)
    assert np.isnan(norm.asscalar())
    assert np.isnan(parameters.asnumpy()).any()
