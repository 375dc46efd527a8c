"""Every form of a matrix product against numpy in float64, and the choice among them."""

from typing import FrozenSet

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.cluster.processor import Processor
from lstm_dist.model.products import (
    fastest_transposed_times,
    plus_times,
    times,
    times_by_convolution,
    transposed_times_by_convolution,
    transposed_times_by_dot,
)

AVX2 = frozenset({"avx", "fma", "avx2"})
AVX512 = AVX2 | {"avx512f", "avx512bw", "avx512dq", "avx512vl"}
# Batch 1, odd sizes, multiples of 16, and both sides of every limit in the choice of a form.
SIZES = [
    (1, 5, 7), (1, 1, 1), (15, 33, 3), (16, 64, 32), (17, 3, 65), (63, 5, 9), (64, 5, 9), (127, 9, 8), (128, 7, 5),
    (257, 140, 31),
]  # fmt: skip
TOLERANCE = {"float32": 2e-7, "float64": 1e-15}  # of the product of the operands' absolute values


def operand(rows: int, columns: int) -> np.ndarray:
    return np.random.default_rng(rows * columns).normal(size=(rows, columns))


def require_equal(found: mx.nd.NDArray, a: np.ndarray, b: np.ndarray, dtype: str) -> None:
    assert found.dtype == np.dtype(dtype)
    assert found.shape == (len(a), b.shape[1])
    a, b = a.astype(dtype).astype(np.float64), b.astype(dtype).astype(np.float64)
    tolerance = TOLERANCE[dtype] * np.sqrt(a.shape[1])
    assert (np.abs(found.asnumpy() - a @ b) <= tolerance * (np.abs(a) @ np.abs(b))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_product_with_a_transposed_right_operand(m: int, k: int, n: int, dtype: str) -> None:
    a, b = operand(m, k), operand(k, n)
    found = times(mx.nd, mx.nd.array(a, dtype=dtype), mx.nd.array(b.T, dtype=dtype), m, n)
    require_equal(found, a, b, dtype)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_product_added_to_a_matrix_and_a_bias(m: int, k: int, n: int, dtype: str) -> None:
    a, b, c, bias = operand(m, k), operand(k, n), operand(m, n), operand(1, n)
    factors = mx.nd.array(a, dtype=dtype), mx.nd.array(b.T, dtype=dtype)
    found = plus_times(mx.nd, mx.nd.array(c, dtype=dtype), mx.nd.array(bias[0], dtype=dtype), *factors, m, n)
    # One product: [c, 1, a] times the identity, the bias and b, one above the other.
    require_equal(found, np.hstack([c, np.ones((m, 1)), a]), np.vstack([np.eye(n), bias, b]), dtype)


@pytest.mark.parametrize("form", [transposed_times_by_dot, transposed_times_by_convolution])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_product_with_a_transposed_left_operand(form, m: int, k: int, n: int, dtype: str) -> None:
    a, b = operand(m, k), operand(k, n)
    found = form(mx.nd, mx.nd.array(a.T, dtype=dtype), mx.nd.array(b, dtype=dtype), m, n)
    require_equal(found, a, b, dtype)


@pytest.mark.parametrize(("m", "k", "n"), SIZES)
def test_product_by_convolution(m: int, k: int, n: int) -> None:
    a, b = operand(m, k), operand(k, n)
    found = times_by_convolution(mx.nd, mx.nd.array(a), mx.nd.array(b), m)
    require_equal(found[0], a, b, "float32")


@pytest.mark.parametrize(
    ("instructions", "form"),
    [
        (AVX512, transposed_times_by_convolution),
        (AVX512 - {"avx512vl"}, transposed_times_by_dot),
        (AVX2, transposed_times_by_dot),
        (frozenset(), transposed_times_by_dot),
    ],
)
def test_form_follows_from_instructions(instructions: FrozenSet[str], form) -> None:
    assert fastest_transposed_times(Processor("any", "any", instructions)) is form
