"""Time only the necessary matrix products, each with MXNet's fastest operator for its size.

This is a lower bound for any step on MXNet's products. It excludes the lookup of rows of W_x, the gates, the loss,
clipping, the update, the exchange and all copies.
"""

import time
from functools import partial
from itertools import product
from typing import Any, Callable, Dict, List, NamedTuple

import mxnet as mx
import numpy as np

from lstm_dist.bench.implementation import Contestant, Seat
from lstm_dist.data.batching import Window


class Product(NamedTuple):
    """A product of an (m, k) and a (k, n) matrix, run `times` times per step with different left matrices."""

    m: int
    k: int
    n: int
    times: int


class Way(NamedTuple):
    """One of MXNet's matrix product operators, and whether it takes its operands transposed."""

    a_transposed: bool
    b_transposed: bool
    multiply: Callable[[Any, Any, Any, Product], Any]  # of F, a, b and sizes; returns the product or its transpose


def products(B: int, T: int, H: int, V: int) -> List[Product]:
    """Return the products of one step of one worker with B streams."""
    return [
        Product(B, H, 4 * H, T),  # h W_h
        Product(B, 4 * H, H, T - 1),  # dz W_h^T; the first character has no predecessor
        Product(H, T * B, 4 * H, 1),  # dW_h
        Product(T * B, H, V, 1),  # the logits
        Product(T * B, V, H, 1),  # dL/dh
        Product(H, T * B, V, 1),  # dW_hy
    ]


def ways() -> List[Way]:
    """Return every MXNet product of two matrices, in every layout; FullyConnected also with `a` as its weight."""
    found = [
        Way(False, True, lambda F, a, b, size: F.FullyConnected(a, b, num_hidden=size.n, no_bias=True)),
        Way(False, True, lambda F, a, b, size: F.FullyConnected(b, a, num_hidden=size.m, no_bias=True)),
    ]
    for a_t, b_t in product((False, True), repeat=2):
        found += [
            Way(a_t, b_t, partial(multiply, transpose_a=a_t, transpose_b=b_t))
            for multiply in (_dot, _gemm2, _batch_dot)
        ]
    return found


def _dot(F: Any, a: Any, b: Any, _: Product, **transposed: bool) -> Any:
    return F.dot(a, b, **transposed)


def _gemm2(F: Any, a: Any, b: Any, _: Product, **transposed: bool) -> Any:
    return F.linalg.gemm2(a, b, **transposed)


def _batch_dot(F: Any, a: Any, b: Any, _: Product, **transposed: bool) -> Any:
    return F.batch_dot(F.expand_dims(a, 0), F.expand_dims(b, 0), **transposed)


class Compiled:
    """A product as a static graph, repeated as often as in a step, on its own operands."""

    def __init__(self, size: Product, way: Way) -> None:
        m, k, n, count = size
        # Use distinct left matrices: MXNet would compute equal expressions only once.
        names = [f"a{number}" for number in range(count)]
        b = mx.sym.var("b")
        outputs = mx.sym.Group([way.multiply(mx.sym, mx.sym.var(name), b, size) for name in names])
        self._graph = mx.nd.CachedOp(outputs, [("static_alloc", True), ("static_shape", True)])
        random = np.random.default_rng(0)

        def operand(rows: int, columns: int, transposed: bool) -> Any:
            return mx.nd.array(random.standard_normal((columns, rows) if transposed else (rows, columns)))

        arrays = {name: operand(m, k, way.a_transposed) for name in names}
        arrays["b"] = operand(k, n, way.b_transposed)
        self._arguments = [arrays[name] for name in outputs.list_arguments()]

    def __call__(self) -> None:
        """Start the products without waiting for them."""
        self._graph(*self._arguments)

    def seconds(self, repeats: int = 7) -> float:
        """Return the shortest time of `repeats` runs."""
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            self()
            mx.nd.waitall()
            taken.append(time.perf_counter() - started)
        return min(taken)


class Floor(Contestant):
    """The fastest operator for every product, found by trying all of them."""

    def __init__(self, seat: Seat) -> None:
        case = seat.case
        self._compiled = [
            min((Compiled(size, way) for way in ways()), key=Compiled.seconds)
            for size in products(seat.streams, case.seq_len, case.hidden_size, case.vocab_size)
        ]

    def backward(self, window: Window) -> Any:  # noqa: ARG002 - the time of a product does not depend on the numbers
        """Compute all products."""
        for compiled in self._compiled:
            compiled()
        mx.nd.waitall()

    def update(self) -> None:
        """Do nothing, as the update has no product."""

    def gradients(self) -> Dict[str, np.ndarray]:
        """Return none."""
        return {}

    def wait(self) -> None:
        """Do nothing, as `backward` blocks."""
