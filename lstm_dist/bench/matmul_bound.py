"""Only the matrix products that the mathematics needs, at their sizes, each with the fastest product that MXNet has.

Nothing that computes the step with MXNet's products can be faster. What is left out: the rows of W_x, which are looked
up, the gates, the loss, the clipping, the update, the exchange, and every copy.
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
    """A (m, k) matrix times a (k, n) one, `times` times a step with other left matrices."""

    m: int
    k: int
    n: int
    times: int


class Way(NamedTuple):
    """One of MXNet's products, and whether it takes its operands transposed."""

    a_transposed: bool
    b_transposed: bool
    multiply: Callable[[Any, Any, Any, Product], Any]  # of F, a and b; the product, or its transpose


def products(B: int, T: int, H: int, V: int) -> List[Product]:
    """Those of one step of one worker with B streams."""
    return [
        Product(B, H, 4 * H, T),  # h W_h
        Product(B, 4 * H, H, T - 1),  # dz W_h^T; nothing goes back from the first character
        Product(H, T * B, 4 * H, 1),  # dW_h
        Product(T * B, H, V, 1),  # the logits
        Product(T * B, V, H, 1),  # dL/dh
        Product(H, T * B, V, 1),  # dW_hy
    ]


def ways() -> List[Way]:
    """Every product of MXNet's for two matrices, in every layout; FullyConnected also with a as its weight."""
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
    """A product in one way as a static graph, as often as a step needs it, on operands of its own."""

    def __init__(self, size: Product, way: Way) -> None:
        m, k, n, count = size
        # Every left matrix is another array: of equal expressions MXNet would compute one.
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
        """Ask for it; nothing waits."""
        self._graph(*self._arguments)

    def seconds(self, repeats: int = 7) -> float:
        """The shortest time that it took."""
        taken = []
        for _ in range(repeats):
            started = time.perf_counter()
            self()
            mx.nd.waitall()
            taken.append(time.perf_counter() - started)
        return min(taken)


class Floor(Contestant):
    """The fastest way of every product, found by trying all of them."""

    def __init__(self, seat: Seat) -> None:
        case = seat.case
        self._compiled = [
            min((Compiled(size, way) for way in ways()), key=Compiled.seconds)
            for size in products(seat.streams, case.seq_len, case.hidden_size, case.vocab_size)
        ]

    def backward(self, window: Window) -> Any:  # noqa: ARG002 - the time of a product does not depend on the numbers
        """All products."""
        for compiled in self._compiled:
            compiled()
        mx.nd.waitall()

    def update(self) -> None:
        """No product."""

    def gradients(self) -> Dict[str, np.ndarray]:
        """None."""
        return {}

    def wait(self) -> None:
        """`backward` has waited."""
