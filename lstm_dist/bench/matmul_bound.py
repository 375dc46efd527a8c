"""Time only the necessary matrix products, each with MXNet's fastest operator for its size.

This is a lower bound for any step on MXNet's products. It excludes the lookup of rows of W_x, the gates, the loss,
clipping, the update, communication and all copies.
"""

import time
from functools import partial
from itertools import product as cartesian_product
from typing import Any, Callable, Dict, List, NamedTuple

import mxnet as mx
import numpy as np

from lstm_dist.bench.implementation import Implementation, WorkerAssignment
from lstm_dist.data.batching import Window
from lstm_dist.model.products import times_by_convolution


class MatrixProduct(NamedTuple):
    """A product of an (m, k) and a (k, n) matrix, run `repeats` times per step with different left matrices."""

    m: int
    k: int
    n: int
    repeats: int


class ProductKernel(NamedTuple):
    """One of MXNet's matrix product operators, and whether its operands are stored transposed."""

    a_transposed: bool
    b_transposed: bool
    multiply: Callable[[Any, Any, Any, MatrixProduct], Any]  # (F, a, b, sizes) -> a b or its transpose


def products(B: int, T: int, H: int, V: int) -> List[MatrixProduct]:
    """Return the products of one step of one worker with B streams."""
    return [
        MatrixProduct(B, H, 4 * H, T),  # h W_h
        MatrixProduct(B, 4 * H, H, T - 1),  # dz W_h^T; the first character has no predecessor
        MatrixProduct(H, T * B, 4 * H, 1),  # dW_h
        MatrixProduct(T * B, H, V, 1),  # the logits
        MatrixProduct(T * B, V, H, 1),  # dL/dh
        MatrixProduct(H, T * B, V, 1),  # dW_hy
    ]


def kernels() -> List[ProductKernel]:
    """Return MXNet's operators for a product, in every layout; FullyConnected also with `a` as its weight.

    The model uses some of them with a transposed copy of an operand or result, which a lower bound excludes.
    """
    found = [
        ProductKernel(False, True, lambda F, a, b, matmul: F.FullyConnected(a, b, num_hidden=matmul.n, no_bias=True)),
        ProductKernel(False, True, lambda F, a, b, matmul: F.FullyConnected(b, a, num_hidden=matmul.m, no_bias=True)),
        ProductKernel(False, False, lambda F, a, b, matmul: times_by_convolution(F, a, b, matmul.m)),
    ]
    for a_t, b_t in cartesian_product((False, True), repeat=2):
        found += [
            ProductKernel(a_t, b_t, partial(multiply, transpose_a=a_t, transpose_b=b_t))
            for multiply in (_dot, _gemm2, _batch_dot)
        ]
    return found


def _dot(F: Any, a: Any, b: Any, _: MatrixProduct, **transposed: bool) -> Any:
    return F.dot(a, b, **transposed)


def _gemm2(F: Any, a: Any, b: Any, _: MatrixProduct, **transposed: bool) -> Any:
    return F.linalg.gemm2(a, b, **transposed)


def _batch_dot(F: Any, a: Any, b: Any, _: MatrixProduct, **transposed: bool) -> Any:
    return F.batch_dot(F.expand_dims(a, 0), F.expand_dims(b, 0), **transposed)


class CompiledProduct:
    """One product of a step, repeated as often as in a step, as a static graph with operands of its own."""

    def __init__(self, matmul: MatrixProduct, kernel: ProductKernel) -> None:
        m, k, n, repeats = matmul
        # Use distinct left matrices: MXNet would compute equal expressions only once.
        names = [f"a{number}" for number in range(repeats)]
        b = mx.sym.var("b")
        outputs = mx.sym.Group([kernel.multiply(mx.sym, mx.sym.var(name), b, matmul) for name in names])
        self._graph = mx.nd.CachedOp(outputs, [("static_alloc", True), ("static_shape", True)])
        random = np.random.default_rng(0)

        def operand(rows: int, columns: int, transposed: bool) -> Any:
            return mx.nd.array(random.standard_normal((columns, rows) if transposed else (rows, columns)))

        arrays = {name: operand(m, k, kernel.a_transposed) for name in names}
        arrays["b"] = operand(k, n, kernel.b_transposed)
        self._arguments = [arrays[name] for name in outputs.list_arguments()]

    def __call__(self) -> None:
        """Start the products without waiting for them."""
        self._graph(*self._arguments)

    def shortest_time(self, runs: int = 7) -> float:
        """Return the shortest time of `runs` runs, in seconds."""
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            self()
            mx.nd.waitall()
            seconds.append(time.perf_counter() - started)
        return min(seconds)


class MatmulBound(Implementation):
    """The products of a step, each with the fastest operator, found by timing all of them."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        case = assignment.case
        self._compiled = [
            min((CompiledProduct(matmul, kernel) for kernel in kernels()), key=CompiledProduct.shortest_time)
            for matmul in products(assignment.streams, case.seq_len, case.hidden_size, case.vocab_size)
        ]

    def backward(self, window: Window) -> Any:  # noqa: ARG002 - the time of a product does not depend on the values
        """Compute all products."""
        for compiled in self._compiled:
            compiled()
        mx.nd.waitall()

    def update(self) -> None:
        """Do nothing, as the update has no product."""

    def gradients(self) -> Dict[str, np.ndarray]:
        """Return no gradients, as none are computed."""
        return {}

    def wait(self) -> None:
        """Do nothing, as `backward` blocks."""
