"""The operations on whole arrays, by the kernels and by MXNet's operators: both give numpy's bits."""

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.cuda import arrays
from tests.support.cuda_device import DEVICE
from tests.support.device_arrays import use_kernels

pytestmark = pytest.mark.kernels

HALVES = np.arange(2**16, dtype=np.uint16).view(np.float16)


@pytest.fixture(params=[mx.cpu(), DEVICE], ids=["operators", "kernels"])
def ctx(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> mx.Context:
    """Return a device on which MXNet's operators compute, and one on which kernels do."""
    use_kernels(monkeypatch)
    return request.param


def bits(values: np.ndarray) -> np.ndarray:
    """Return the bits of floats, with one NaN for all of them."""
    unsigned: np.ndarray = np.where(np.isnan(values), np.array(np.nan, values.dtype), values)
    return unsigned.view(f"u{values.itemsize}")


def floats() -> np.ndarray:
    """Return floats of every exponent, all halves, what is half way between two of them, and the neighbours of each."""
    halves = HALVES[np.isfinite(HALVES)].astype(np.float32)
    between = (np.unique(halves)[1:] + np.unique(halves)[:-1]) / 2
    largest = np.array([65519.996, 65520, 65536, 1e30, np.inf, np.nan, 0.0, 2.0**-25, 2.0**-24, 1e-40], np.float32)
    chosen = np.concatenate([halves, between, largest, -largest])
    any_bits = np.random.default_rng(0).integers(0, 2**32, 50_000, np.uint32).view(np.float32)
    return np.concatenate([chosen, np.nextafter(chosen, np.inf), np.nextafter(chosen, -np.inf), any_bits])


@pytest.mark.parametrize("n", [1, 255, 256, 257, 1000])
def test_arrays_are_scaled_in_place(ctx: mx.Context, n: int) -> None:
    values = np.random.default_rng(n).normal(size=n).astype(np.float32)
    whole = mx.nd.array(np.concatenate([values, [7, 8]]), ctx)
    arrays.scale_(whole[:n], 0.3)
    np.testing.assert_array_equal(whole.asnumpy(), [*(values * np.float32(0.3)), 7, 8])


def test_every_half_becomes_its_float(ctx: mx.Context) -> None:
    array = mx.nd.empty(HALVES.shape, ctx)
    arrays.from_half(mx.nd.array(HALVES, ctx, dtype="float16"), array)
    np.testing.assert_array_equal(bits(array.asnumpy()), bits(HALVES.astype(np.float32)))


@pytest.mark.parametrize("factor", [1.0, 0.3])
def test_products_are_rounded_to_the_nearest_half(ctx: mx.Context, factor: float) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        expected = (floats() * np.float32(factor)).astype(np.float16)
    half = arrays.to_half(mx.nd.array(floats(), ctx), factor)
    assert (half.dtype, half.context) == (np.float16, ctx)
    np.testing.assert_array_equal(bits(half.asnumpy()), bits(expected))
