"""The traffic of the allreduce algorithms, counted by hand and by simulation, and fits of the link's constants."""

import math
from typing import List, Sequence

import numpy as np
import pytest

from lstm_dist.scaling.allreduce_model import LONG, SHORT, Link, Sample, fit_link, traffic

TRUTH = Link(overhead=2e-4, alpha_short=5e-6, alpha=4e-5, beta=3e-10)
SIZES = [64, 1024, 8192, 65_536, 2**18, 2**20, 2**23, 2**25]
CLEAR = [size for size in SIZES if not SHORT <= size < LONG]


def samples(truth: Link, workers: Sequence[int], noise: float = 0.0, seed: int = 0) -> List[Sample]:
    generator = np.random.default_rng(seed)
    cases = [(n, size) for n in workers for size in SIZES]
    return [Sample(n, b, truth.seconds(n, b) * math.exp(noise * generator.standard_normal())) for n, b in cases]


@pytest.mark.parametrize(
    ("workers", "short", "long"),
    [
        (2, (1, 1), (2, 1)),
        (3, (7 / 3, 7 / 3), (5, 3)),
        (4, (2, 2), (4, 1.5)),
        (5, (3.2, 3.2), (7, 3.5)),
        (1024, (10, 10), (20, 2)),
    ],
)
def test_traffic_of_open_mpi(workers, short, long):
    assert traffic(workers, 1000, "mpi") == pytest.approx((short[0], 1000 * short[1]))
    assert traffic(workers, 10**6, "mpi") == pytest.approx((long[0], 10**6 * long[1]), rel=1e-3)


def test_traffic_of_rabenseifners_algorithm():
    """Of 16 workers, each sends halves, quarters, ... of the buffer, first to reduce and then to gather."""
    halves = [2**20 / 2**step for step in range(1, 5)]
    assert traffic(16, 2**20, "mpi") == (2 * len(halves), 2 * sum(halves))


@pytest.mark.parametrize(
    ("workers", "messages", "share"), [(2, 2, 1), (3, 4, 4 / 3), (4, 6, 1.5), (1024, 2046, 2046 / 1024)]
)
def test_traffic_of_a_ring(workers, messages, share):
    for size in (1000, 10**6):
        assert traffic(workers, size, "ring") == pytest.approx((messages, size * share))


def test_seconds_are_the_cost_of_a_call_its_messages_and_its_bytes():
    assert TRUTH.seconds(4, SHORT - 1) == pytest.approx(2e-4 + 2 * 5e-6 + 2 * (SHORT - 1) * 3e-10)
    assert TRUTH.seconds(4, SHORT) == pytest.approx(2e-4 + 4 * 4e-5 + 1.5 * SHORT * 3e-10)
    assert TRUTH._replace(algorithm="ring").seconds(4, SHORT) == pytest.approx(2e-4 + 6 * 4e-5 + 1.5 * SHORT * 3e-10)
    assert TRUTH.seconds(1, 10**9) == 0.0


@pytest.mark.parametrize("algorithm", ["mpi", "ring"])
@pytest.mark.parametrize("workers", [[2, 3], [2, 4], [2, 3, 4], [4, 8, 16, 31]])
def test_the_constants_are_fitted_exactly_without_noise(algorithm, workers):
    truth = TRUTH._replace(algorithm=algorithm)
    found = fit_link(samples(truth, workers), algorithm)
    assert found[:4] == pytest.approx(truth[:4], rel=1e-6)
    assert found.algorithm == algorithm
    assert found.residuals == pytest.approx([0.0] * len(workers) * len(CLEAR), abs=1e-9)


@pytest.mark.parametrize("algorithm", ["mpi", "ring"])
def test_predictions_stay_within_bounds_in_noise_of_five_percent(algorithm):
    truth = TRUTH._replace(algorithm=algorithm)
    for seed in range(100):
        found = fit_link(samples(truth, [2, 4, 8, 16], 0.05, seed), algorithm)
        assert found.beta == pytest.approx(truth.beta, rel=0.1)
        assert found.alpha == pytest.approx(truth.alpha, rel=0.5)
        for workers, size in ((4, 1024), (16, 9_225_452), (64, 9_225_452)):
            assert found.seconds(workers, size) == pytest.approx(truth.seconds(workers, size), rel=0.15)
        assert np.std(found.residuals) == pytest.approx(0.05, rel=0.5)


def test_residuals_are_in_the_order_of_the_samples():
    measured = samples(TRUTH, [2, 4])
    measured[5] = measured[5]._replace(seconds=measured[5].seconds * 1.2)
    link = fit_link(measured)
    clear = [s for s in measured if s.bytes in CLEAR]
    assert link.residuals == pytest.approx([s.seconds / link.seconds(s.workers, s.bytes) - 1 for s in clear])
    assert max(link.residuals) == link.residuals[clear.index(measured[5])] > 0.05


def test_sizes_between_short_and_long_are_not_used():
    usual = samples(TRUTH, [2, 4])
    odd = [s if s.bytes in CLEAR else s._replace(seconds=10 * s.seconds) for s in usual]
    assert len([s for s in odd if s not in usual]) == 4
    assert fit_link(odd) == fit_link(usual)


def test_with_one_number_of_workers_all_latency_is_per_message():
    link = fit_link(samples(TRUTH, [2]))
    assert link.overhead == 0.0
    assert link.alpha_short == pytest.approx(TRUTH.overhead + TRUTH.alpha_short)
    for size in SIZES:
        assert link.seconds(2, size) == pytest.approx(TRUTH.seconds(2, size))
        assert link.seconds(1024, size) > TRUTH.seconds(1024, size)


def test_without_negotiation_there_is_no_overhead():
    truth = TRUTH._replace(overhead=0.0)
    measured = [s._replace(seconds=1.1 * s.seconds if s.workers == 2 else s.seconds) for s in samples(truth, [2, 3, 4])]
    link = fit_link(measured, negotiated=False)
    assert link.overhead == 0.0 < fit_link(measured).overhead
    assert truth.alpha_short < link.alpha_short < 1.1 * truth.alpha_short


def test_constants_are_not_negative():
    # Times that decrease with the number of workers, as in a disturbed measurement.
    link = fit_link([Sample(n, size, (1e-4 + size * 1e-9) / n) for n in (2, 4, 8) for size in SIZES])
    assert min(link[:4]) >= 0.0


@pytest.mark.parametrize("sizes", [[64, 1024], [2**20, 2**21], [64, 2**20]], ids=["short", "long", "one each"])
def test_sizes_that_do_not_determine_the_constants_are_refused(sizes):
    with pytest.raises(ValueError, match="do not determine alpha_short, alpha, beta"):
        fit_link([Sample(2, size, TRUTH.seconds(2, size)) for size in sizes])


def test_invalid_samples_are_refused():
    with pytest.raises(ValueError, match="one worker does not communicate"):
        fit_link([*samples(TRUTH, [2, 4]), Sample(1, 1024, 1e-5)])
    for bad in (math.nan, 0.0, -1.0):
        with pytest.raises(ValueError, match="numbers above 0"):
            fit_link([*samples(TRUTH, [2, 4]), Sample(2, 1024, bad)])
    with pytest.raises(ValueError, match="finite number"):
        fit_link([*samples(TRUTH, [2, 4]), Sample(2, math.nan, 1e-5)])
    with pytest.raises(ValueError, match="at least one"):
        fit_link([])
