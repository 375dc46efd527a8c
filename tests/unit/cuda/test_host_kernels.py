"""The tool with which the other tests run CUDA kernels without a GPU."""

import time

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.cuda.module import LaunchSize
from lstm_dist.cuda.source import parse_source
from tests.support.host_kernels import HostModule

pytestmark = pytest.mark.kernels

CTX = mx.cpu(1)
ORDERS = ["forward", "reversed", 0, 1]

AXPY = parse_source("""
// y += a x for x and y, (n,).
extern "C" __global__ void axpy(float a, const float *x, float *y, int n) {
    int i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i < n) y[i] += a * x[i];
}
""")

# One sum of each block's 64 numbers. SYNC is left out to see that this is found.
SUM = """
extern "C" __global__ void __launch_bounds__(64) sum(const float *x, float *sums) {
    __shared__ float part[64];
    int t = threadIdx.x;
    part[t] = x[blockIdx.x * 64 + t];
    SYNC
    for (int half = 32; half > 0; half /= 2) {
        if (t < half) part[t] += part[t + half];
        SYNC
    }
    if (t == 0) sums[blockIdx.x] = part[0];
}
"""

# x[b] <- x[b + 1] + 1 for all blocks b of the grid together, `steps` times.
ROTATE = parse_source("""
__device__ __forceinline__ void meet(unsigned *arrived, unsigned round) {
    __syncthreads();
    if (threadIdx.x == 0) {
        __threadfence();
        atomicAdd(arrived, 1u);
        while (__ldcv(arrived) < round * gridDim.x) {}
        __threadfence();
    }
    __syncthreads();
}
extern "C" __global__ void rotate(float *x, int *arrived, int steps) {
    unsigned *counter = (unsigned *)arrived, round = 0;
    for (int step = 0; step < steps; step++) {
        float next = __ldcg(x + (blockIdx.x + 1) % gridDim.x);
        meet(counter, ++round);
        if (threadIdx.x == blockDim.x - 1) x[blockIdx.x] = next + 1;
        meet(counter, ++round);
    }
}
""")

FAULTS = parse_source("""
extern "C" __global__ void returns_early(float *x) {
    if (threadIdx.x == 3) return;
#line 7 "faults.cu"
    __syncthreads();
    x[threadIdx.x] = 1;
}
extern "C" __global__ void meets_elsewhere(float *x) {
    if (threadIdx.x == 3) {
#line 9 "faults.cu"
        __syncthreads();
    } else {
        __syncthreads();
    }
    x[threadIdx.x] = 1;
}
extern "C" __global__ void waits_for_ever(int *flag) {
    while (__ldcv(flag) == 0) {}
}
""")


def array(values: np.ndarray, dtype: str = "float32") -> mx.nd.NDArray:
    return mx.nd.array(values, ctx=CTX, dtype=dtype)


@pytest.mark.parametrize("order", ORDERS)
def test_each_thread_of_each_block_runs_once(order):
    x, y = array(np.arange(1000)), array(np.arange(1000) ** 2)
    HostModule(AXPY, CTX, order).launch("axpy", LaunchSize((4, 1), 256), 0.5, x, y, 999)
    expected = np.arange(1000.0) ** 2
    expected[:999] += np.arange(999) / 2
    np.testing.assert_array_equal(y.asnumpy(), expected)


def test_indices_and_sizes_in_two_dimensions():
    kernel = parse_source("""
    extern "C" __global__ void number(int *x) {
        int block = blockIdx.y * gridDim.x + blockIdx.x;
        x[block * blockDim.x + threadIdx.x] += 1000 * gridDim.y + 100 * blockIdx.y + 10 * blockIdx.x + threadIdx.x;
    }
    """)
    x = mx.nd.zeros((2, 3, 4), CTX, "int32")
    HostModule(kernel, CTX).launch("number", LaunchSize((3, 2), 4), x)
    y, b, t = np.indices((2, 3, 4))
    np.testing.assert_array_equal(x.asnumpy(), 2000 + 100 * y + 10 * b + t)


@pytest.mark.parametrize("order", ORDERS)
def test_sums_through_shared_memory_in_any_order_of_the_threads(order):
    x, sums = array(np.arange(640)), array(np.zeros(10))
    HostModule(parse_source(SUM.replace("SYNC", "__syncthreads();")), CTX, order).launch(
        "sum", LaunchSize((10, 1), 64), x, sums
    )
    np.testing.assert_array_equal(sums.asnumpy(), np.arange(640).reshape(10, 64).sum(1))


@pytest.mark.parametrize("order", ["forward", 0, 1])
def test_a_missing_barrier_is_seen_in_orders_in_which_threads_read_what_is_not_written_yet(order):
    """Shared memory is NaN at the start of a block. In reversed order, these threads read what others have written."""
    x, sums = array(np.arange(640)), array(np.zeros(10))
    HostModule(parse_source(SUM.replace("SYNC", "")), CTX, order).launch("sum", LaunchSize((10, 1), 64), x, sums)
    assert np.isnan(sums.asnumpy()).any()


@pytest.mark.parametrize("order", ["forward", "reversed"])
def test_a_missing_barrier_before_memory_is_written_again_is_seen_in_one_of_two_orders(order):
    kernel = parse_source("""
    extern "C" __global__ void shift(float *x) {
        __shared__ float copy[8];
        int t = threadIdx.x;
        copy[t] = x[t];
        __syncthreads();
        if (t > 0) copy[t] = copy[t - 1];
        __syncthreads();
        x[t] = copy[t];
    }
    """)
    x = array(np.arange(8))
    HostModule(kernel, CTX, order).launch("shift", LaunchSize((1, 1), 8), x)
    expected = {"forward": np.zeros(8), "reversed": np.maximum(np.arange(8) - 1, 0)}[order]
    np.testing.assert_array_equal(x.asnumpy(), expected)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("blocks", [1, 2, 7])
def test_all_blocks_of_a_grid_meet_at_a_barrier(blocks, order):
    steps = 5
    x, arrived = array(np.arange(blocks) * 10), array(np.zeros(1), "int32")
    HostModule(ROTATE, CTX, order).launch("rotate", LaunchSize((blocks, 1), 32), x, arrived, steps)
    np.testing.assert_array_equal(x.asnumpy(), np.roll(np.arange(blocks) * 10, -steps) + steps)
    assert arrived.asscalar() == 2 * steps * blocks


def test_launches_are_ordered_with_the_operations_of_mxnet():
    """Each operation takes long enough that the next one would be earlier, if it did not wait."""
    module = HostModule(AXPY, CTX)
    a = mx.nd.random.uniform(shape=(600, 600), ctx=CTX)
    for _ in range(5):
        product = mx.nd.dot(a, a)  # memory that is allocated only when the operation is run
        product = mx.nd.dot(product, a)
        y = mx.nd.empty((360000,), CTX)
        y[:] = 1
        module.launch("axpy", LaunchSize((1, 1), 64), 2.0, product.reshape((-1,)), y, 64)
        del product
        got = (y + 0)[:64].asnumpy()
        expected = 1 + 2 * mx.nd.dot(mx.nd.dot(a, a), a).asnumpy().ravel()[:64]
        np.testing.assert_array_equal(got, expected)


def test_a_launch_is_asynchronous():
    module = HostModule(FAULTS, CTX, time_limit=2)
    flag, start = array(np.zeros(1), "int32"), time.monotonic()
    module.launch("waits_for_ever", LaunchSize((1, 1), 1), flag)
    assert time.monotonic() - start < 1.5
    with pytest.raises(mx.MXNetError):
        flag.wait_to_read()


@pytest.mark.parametrize(
    ("kernel", "message"),
    [
        ("returns_early", "thread 0 waits at __syncthreads of faults.cu:7, and thread 3 has returned"),
        (
            "meets_elsewhere",
            "thread 0 waits at __syncthreads of faults.cu:11, and thread 3 waits at __syncthreads of faults.cu:9",
        ),
    ],
)
@pytest.mark.parametrize("order", ORDERS)
def test_threads_that_do_not_meet_are_an_error(kernel, message, order):
    x = array(np.zeros(8))
    HostModule(FAULTS, CTX, order).launch(kernel, LaunchSize((2, 1), 8), x)
    with pytest.raises(mx.MXNetError, match=f"kernel {kernel}: {message}"):
        x.asnumpy()


@pytest.mark.parametrize(("index", "fails"), [(7, False), (8, True), (-1, True)])
def test_an_index_out_of_bounds_is_an_error(index, fails):
    kernel = parse_source("""
    extern "C" __global__ void reverse(float *x, int last) {
        __shared__ float copy[3][8];
#line 4 "reverse.cu"
        copy[1][last - (int)threadIdx.x] = x[threadIdx.x];
        __syncthreads();
        x[threadIdx.x] = copy[1][threadIdx.x];
    }
    """)
    x = array(np.arange(8))
    HostModule(kernel, CTX).launch("reverse", LaunchSize((1, 1), 8), x, index)
    if fails:
        with pytest.raises(mx.MXNetError, match=f"thread 0 uses index {index} out of bounds at reverse.cu:4"):
            x.asnumpy()
    else:
        np.testing.assert_array_equal(x.asnumpy(), np.arange(8)[::-1])


def test_a_wait_without_end_is_an_error():
    flag = array(np.zeros(1), "int32")
    HostModule(FAULTS, CTX, time_limit=0.2).launch("waits_for_ever", LaunchSize((3, 1), 32), flag)
    with pytest.raises(mx.MXNetError, match="kernel waits_for_ever: not finished after 0.2"):
        flag.asnumpy()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (lambda x, y: (1.0, x, y), "axpy: 3 arguments for 4 parameters"),
        (lambda x, y: (1.0, x, y, 1.5), "axpy: n: float, not int"),
        (lambda x, y: (x, x, y, 1), "axpy: a: NDArray, not float"),
        (lambda _, y: (1.0, 2.0, y, 1), "axpy: x: float, not an array"),
        (lambda x, y: (1.0, x.astype("float16"), y, 1), "axpy: x: an array of float16, not float32"),
    ],
)
def test_arguments_that_do_not_fit_are_an_error(arguments, message):
    with pytest.raises(TypeError, match=message):
        HostModule(AXPY, CTX).launch("axpy", LaunchSize((1, 1), 1), *arguments(array(np.ones(4)), array(np.ones(4))))


@pytest.mark.parametrize(
    "view", [lambda x: x, lambda x: x[2:], lambda x: x.reshape((2, 2)), lambda x: x[:2].reshape((2, 1))]
)
def test_an_array_given_twice_is_an_error_unless_both_are_const(view):
    x, y = array(np.ones(4)), array(np.ones(4))
    with pytest.raises(ValueError, match="axpy: x and y are in one array"):
        HostModule(AXPY, CTX).launch("axpy", LaunchSize((1, 1), 1), 1.0, x, view(x), 1)
    add = parse_source("""
    extern "C" __global__ void add(const float *a, const float *b, float *sum) { sum[0] = a[0] + b[0]; }
    """)
    HostModule(add, CTX).launch("add", LaunchSize((1, 1), 1), x, view(x), y)
    assert y.asnumpy()[0] == 2


def test_an_array_on_another_device_is_an_error():
    with pytest.raises(ValueError, match=r"axpy: x: an array on cpu\(0\), not cpu\(1\)"):
        HostModule(AXPY, CTX).launch("axpy", LaunchSize((1, 1), 1), 1.0, mx.nd.ones(4), array(np.ones(4)), 1)


@pytest.mark.parametrize("size", [((0, 1), 32), ((1, 65536), 32), ((1, 1), 1025), ((1, 1), 0)])
def test_a_size_that_no_gpu_accepts_is_an_error(size):
    with pytest.raises(ValueError, match="axpy: .* is not a size for GPUs"):
        HostModule(AXPY, CTX).launch("axpy", LaunchSize(*size), 1.0, array(np.ones(4)), array(np.ones(4)), 1)


def test_bits_of_float16_are_read_and_written():
    kernel = parse_source("""
    extern "C" __global__ void negate(const unsigned short *x, unsigned short *y) {
        y[threadIdx.x] = x[threadIdx.x] ^ 0x8000;
    }
    """)
    x, y = array(np.array([0.5, -3, 7]), "float16"), array(np.zeros(3), "float16")
    HostModule(kernel, CTX).launch("negate", LaunchSize((1, 1), 3), x, y)
    np.testing.assert_array_equal(y.asnumpy(), [-0.5, 3, -7])


def test_source_that_does_not_compile_is_an_error_at_its_line():
    with pytest.raises(ValueError, match="wrong.cu:5:"):
        HostModule(parse_source('#line 5 "wrong.cu"\nextern "C" __global__ void f(int *x) { y = 1; }\n'), CTX)
