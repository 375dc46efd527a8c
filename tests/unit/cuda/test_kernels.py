"""Each kernel that is not part of the recurrence against numpy in float64.

Sizes are larger than a block and no multiples of it, and all axes have different lengths. The recurrence is tested in
tests/unit/model/test_cuda_lstm.py.
"""

from typing import Any

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.cuda import launch_sizes
from lstm_dist.cuda.module import Module
from lstm_dist.cuda.source import read_source
from lstm_dist.model.cuda_recurrence import files_of
from tests.support.cuda_device import DEVICE, ORDERS, compile_kernels

pytestmark = pytest.mark.kernels

NORMAL = np.finfo(np.float32).tiny


@pytest.fixture(params=["forward", *ORDERS])
def module(request: pytest.FixtureRequest) -> Module:
    return compile_kernels(read_source(files_of(is_persistent=False), HIDDEN=6), request.param)


def there(values: Any, dtype: str = "float32") -> mx.nd.NDArray:
    return mx.nd.array(np.asarray(values), ctx=DEVICE, dtype=dtype)


def blank(*shape: int) -> mx.nd.NDArray:
    return mx.nd.array(np.full(shape, np.nan), ctx=DEVICE)


def softmax_loss(module: Module, logits: np.ndarray, b: np.ndarray, targets: np.ndarray) -> "tuple[Any, Any]":
    derivatives, losses = there(logits), blank(len(logits))
    size = launch_sizes.reduced(len(logits))
    module.launch("softmax_loss", size, derivatives, there(b), there(targets, "int32"), losses, logits.shape[1])
    return derivatives.asnumpy(), losses.asnumpy()


def test_softmax_loss_and_its_gradient(module: Module):
    rng = np.random.default_rng(0)
    logits, b, targets = rng.normal(0, 3, (5, 601)), rng.normal(0, 3, 601), np.array([0, 600, 255, 256, 17])
    derivatives, losses = softmax_loss(module, logits, b, targets)
    powers = np.exp(logits + b)
    probabilities = powers / powers.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(losses, -np.log(probabilities[np.arange(5), targets]), rtol=1e-5)
    np.testing.assert_allclose(derivatives, probabilities - np.eye(601)[targets], rtol=1e-5, atol=1e-9)


def test_loss_of_an_impossible_character_is_finite_and_that_of_huge_logits_exact(module: Module):
    logits = np.array([[0, 3000, 0], [3000, 0, 0]], np.float32)
    derivatives, losses = softmax_loss(module, logits, np.zeros(3), np.array([0, 0]))
    np.testing.assert_allclose(losses, [-np.log(NORMAL), 0], rtol=1e-6)
    np.testing.assert_array_equal(derivatives, [[-1, 1, 0], [0, 0, 0]])


def test_the_largest_logit_is_found_at_any_place(module: Module):
    """Its power would not be finite if another logit were subtracted from it."""
    places = np.array([0, 100, 255, 256, 600])
    losses = softmax_loss(module, 3000 * np.eye(601)[places], np.zeros(601), places)[1]
    np.testing.assert_array_equal(losses, np.zeros(5))


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_loss_of_logits_that_are_not_finite_is_nan(module: Module, bad: float):
    logits = np.zeros((1, 300), np.float32)
    logits[0, 290] = bad
    assert np.isnan(softmax_loss(module, logits, np.zeros(300), np.array([1]))[1]).all()


@pytest.mark.parametrize(("requests", "expected"), [(0, [0, 0]), (1, [1, 0]), (2, [0, 1]), (3, [1, 1])])
def test_losses_are_summed_and_requests_become_flags(module: Module, requests: int, expected: "list[int]"):
    losses, loss, flags = np.random.default_rng(1).gamma(2, 3, 1003), blank(1), blank(2)
    module.launch("sum_loss", launch_sizes.reduced(1), there(losses), loss, flags, losses.size, requests, 2)
    np.testing.assert_allclose(loss.asscalar(), losses.sum(), rtol=1e-6)
    assert flags.asnumpy().tolist() == expected


@pytest.mark.parametrize(("rows", "columns"), [(1, 1), (100, 33), (7, 64)])
def test_columns_are_summed(module: Module, rows: int, columns: int):
    matrix, sums = np.random.default_rng(2).normal(size=(rows, columns)), blank(columns)
    module.launch("column_sums", launch_sizes.columns(columns), there(matrix), sums, rows, columns)
    np.testing.assert_allclose(sums.asnumpy(), matrix.sum(axis=0), rtol=1e-5, atol=1e-5)


def test_gradient_of_a_lookup_adds_in_the_given_order(module: Module):
    """1e8 + 1 - 1e8 differs from 1e8 - 1e8 + 1 in float32; a row that is not looked up gets zero."""
    dz = np.random.default_rng(3).normal(size=(6, 300)).astype(np.float32)
    dz[[1, 3, 5], 0] = 1e8, 1, -1e8
    gradient = blank(4, 300)
    order, starts = there([0, 1, 3, 5, 2, 4], "int32"), there([0, 1, 4, 4, 6], "int32")
    module.launch("lookup_gradient", launch_sizes.rows_by_columns(4, 300), there(dz), order, starts, gradient, 300)
    expected = np.stack([dz[0], dz[1] + dz[3] + dz[5], np.zeros(300, np.float32), dz[2] + dz[4]])
    assert gradient.asnumpy().tobytes() == expected.tobytes()


@pytest.mark.parametrize(("n", "max_norm"), [(1, 0.1), (200_003, 5.0), (200_003, 1e4)])
def test_norm_and_factor_of_clipping(module: Module, n: int, max_norm: float):
    gradient, norm, factor = np.random.default_rng(4).normal(size=n), blank(1), blank(1)
    partial, blocks = blank(launch_sizes.NORM_BLOCKS), launch_sizes.NORM_BLOCKS
    module.launch("square_sums", launch_sizes.reduced(blocks), there(gradient), partial, n)
    module.launch("clip", launch_sizes.reduced(1), partial, norm, factor, max_norm, blocks)
    expected = np.linalg.norm(gradient)
    np.testing.assert_allclose(norm.asscalar(), expected, rtol=1e-6)
    np.testing.assert_allclose(factor.asscalar(), min(max_norm / expected, 1), rtol=1e-6)


def test_zero_gradient_is_not_scaled(module: Module):
    partial, norm, factor = there(np.zeros(256)), blank(1), blank(1)
    module.launch("clip", launch_sizes.reduced(1), partial, norm, factor, 5.0, 256)
    assert (norm.asscalar(), factor.asscalar()) == (0, 1)


def test_update_changes_all_others_and_the_rows_of_the_characters(module: Module):
    rng = np.random.default_rng(5)
    V, columns, others, characters = 7, 24, 301, [1, 4, 6]
    parameters, gradients = rng.normal(size=V * columns + others), rng.normal(size=others + 4 * columns)
    updated, n = there(parameters), others + 3 * columns  # the fourth row stands for no character
    arrays = there(gradients), there(characters, "int32"), there([0.25])
    module.launch("sgd_update", launch_sizes.each(n), updated, *arrays, 2.0, V, columns, others, n)
    expected = parameters.astype(np.float32).astype(np.float64)
    expected[V * columns :] -= 0.5 * gradients[:others]
    for row, character in enumerate(characters):
        there_now = slice(character * columns, (character + 1) * columns)
        expected[there_now] -= 0.5 * gradients[others + row * columns : others + (row + 1) * columns]
    np.testing.assert_allclose(updated.asnumpy(), expected, rtol=1e-6, atol=1e-6)
    unchanged = np.setdiff1d(np.arange(V), characters)
    np.testing.assert_array_equal(
        updated.asnumpy()[: V * columns].reshape(V, columns)[unchanged],
        parameters[: V * columns].reshape(V, columns)[unchanged].astype(np.float32),
    )


def test_numbers_of_a_step_are_gathered_in_order(module: Module):
    numbers = blank(4)
    arrays = there([1.5]), there([2.5]), there([0.5, 1]), numbers
    module.launch("gather_numbers", launch_sizes.each(4), *arrays, 2)
    assert numbers.asnumpy().tolist() == [1.5, 2.5, 0.5, 1]
