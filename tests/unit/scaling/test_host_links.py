"""The traffic within hosts and between them, counted by hand and by simulation, and fits of both links."""

import math
from typing import Dict, List, Sequence, Tuple

import numpy as np
import pytest

from lstm_dist.scaling.allreduce_model import LONG, SHORT, Link, Sample, traffic
from lstm_dist.scaling.host_links import HostLinks, fit_host_links, host_traffic

WITHIN = Link(overhead=1e-4, alpha_short=5e-6, alpha=2e-5, beta=3e-10)
BETWEEN = Link(overhead=5e-4, alpha_short=5e-5, alpha=2e-4, beta=8e-9)
SIZES = [64, 1024, 8192, 65_536, 2**18, 2**20, 2**23, 2**25]
CLEAR = [size for size in SIZES if not SHORT <= size < LONG]
MIB = 2**20


def links(algorithm: str, per_host: int = 2) -> HostLinks:
    both = (link._replace(algorithm=algorithm) for link in (WITHIN, BETWEEN))
    return HostLinks(*both, per_host)


def samples(truth: HostLinks, workers: Sequence[int], noise: float = 0.0, seed: int = 0) -> List[Sample]:
    generator = np.random.default_rng(seed)
    return [
        Sample(n, size, truth.seconds(n, size) * math.exp(noise * generator.standard_normal()), min(n, truth.per_host))
        for n in workers
        for size in SIZES
    ]


@pytest.mark.parametrize("algorithm", ["mpi", "ring"])
@pytest.mark.parametrize("size", [1000, MIB])
def test_the_traffic_of_one_host_and_of_hosts_of_one_worker_takes_one_link(algorithm, size):
    for workers in (2, 3, 4, 7, 8):
        sent = pytest.approx(traffic(workers, size, algorithm))
        assert host_traffic(workers, workers, size, algorithm) == (sent, (0, 0))
        assert host_traffic(workers, 8, size, algorithm) == (sent, (0, 0))
        assert host_traffic(workers, 1, size, algorithm) == ((0, 0), sent)


@pytest.mark.parametrize(
    ("workers", "per_host", "within", "between"),
    [
        (4, 2, (2, 1), (2, 1)),
        (8, 4, (4, 1.5), (2, 1)),  # four workers of a host send an eighth to the other host, at the same time
        (8, 2, (2, 1), (4, 1.5)),
        (3, 2, (3, 2), (2, 1)),  # the third worker is alone on the second host
        (6, 2, (3, 2), (4, 2)),
        (6, 3, (2, 1), (5, 3)),  # the neighbours that join first, ranks 2 and 3, are on two hosts
    ],
)
def test_traffic_of_long_buffers_with_open_mpi(workers, per_host, within, between):
    counted = host_traffic(workers, per_host, MIB, "mpi")
    assert counted.within == pytest.approx((within[0], within[1] * MIB))
    assert counted.between == pytest.approx((between[0], between[1] * MIB))


def test_traffic_of_short_buffers_with_open_mpi():
    assert host_traffic(4, 2, 1000, "mpi") == ((1, 1000), (1, 2 * 1000))
    assert host_traffic(16, 4, 1000, "mpi") == ((2, 2000), (2, 2 * 4 * 1000))


def ring(workers: int, per_host: int, latency: Tuple[float, float], part: Tuple[float, float]) -> List[float]:
    """Simulate a ring, and return the time at which each worker has the result.

    A part leaves a worker when it has arrived there and the part before it has left.

    Args:
        latency: seconds that a part is under way, within a host and between hosts.
        part: seconds that a link needs for a part.
    """
    crosses = [rank // per_host != (rank + 1) % workers // per_host for rank in range(workers)]
    arrived, free = [0.0] * workers, [0.0] * workers
    for _ in range(2 * (workers - 1)):
        free = [max(ready, busy) + part[crossing] for ready, busy, crossing in zip(arrived, free, crosses)]
        arrived = [free[rank - 1] + latency[crosses[rank - 1]] for rank in range(workers)]
    return arrived


@pytest.mark.parametrize(("workers", "per_host"), [(3, 2), (4, 2), (6, 3), (7, 3), (16, 4), (64, 8)])
def test_traffic_of_a_simulated_ring(workers, per_host):
    counted = host_traffic(workers, per_host, MIB, "ring")
    for only in (0, 1):  # latency within hosts only, then between hosts only
        latency = (float(only == 0), float(only == 1))
        assert counted[only][0] == pytest.approx(np.mean(ring(workers, per_host, latency, (0.0, 0.0))))
    assert counted.within[1] == 0.0
    part = (0.1 / workers, 1 / workers)  # a part takes ten times as long between hosts
    assert max(ring(workers, per_host, (0.0, 0.0), part)) == pytest.approx(counted.between[1] / MIB, rel=0.15)


def test_seconds_take_the_link_of_each_message():
    both = links("ring")
    assert both.seconds(1, MIB) == 0.0
    assert both.seconds(2, MIB) == both.within.seconds(2, MIB)
    assert both.seconds(4, MIB) == pytest.approx(5e-4 + 3 * 2e-5 + 3 * 2e-4 + 1.5 * MIB * 8e-9)
    assert both._replace(per_host=4).seconds(4, MIB) == both.within.seconds(4, MIB)
    assert both._replace(per_host=1).seconds(4, MIB) == pytest.approx(both.between.seconds(4, MIB))
    assert both.without_latency.seconds(4, MIB) == pytest.approx(1.5 * MIB * 8e-9)


def test_an_unknown_link_is_assumed_to_be_as_the_measured_one():
    for alone in (HostLinks(WITHIN, None, 2), HostLinks(None, WITHIN, 2)):
        assert alone.seconds(64, MIB) == WITHIN.seconds(64, MIB)
        assert alone.without_latency.seconds(64, MIB) == WITHIN.without_latency.seconds(64, MIB)
        assert alone.known == (WITHIN,)


@pytest.mark.parametrize("algorithm", ["mpi", "ring"])
@pytest.mark.parametrize(("workers", "per_host"), [([2, 3, 4, 8, 16], 4), ([2, 4, 8, 16], 4), ([2, 3, 4, 6, 8, 12], 3)])
def test_both_links_are_fitted_exactly_without_noise(algorithm, workers, per_host):
    truth = links(algorithm, per_host)
    found = fit_host_links(samples(truth, workers), algorithm)
    assert found.per_host == per_host
    for link, true in ((found.within, truth.within), (found.between, truth.between)):
        assert link[:4] == pytest.approx(true[:4], rel=1e-6)
        assert link.algorithm == algorithm
    together = [n for n in workers if n <= per_host]
    assert found.within.residuals == pytest.approx([0.0] * len(together) * len(CLEAR), abs=1e-9)
    assert found.between.residuals == pytest.approx([0.0] * (len(workers) - len(together)) * len(CLEAR), abs=1e-9)


@pytest.mark.parametrize("algorithm", ["mpi", "ring"])
def test_two_hosts_predict_eight_in_noise_of_five_percent(algorithm):
    truth = links(algorithm)
    for seed in range(100):
        found = fit_host_links(samples(truth, [2, 3, 4], 0.05, seed), algorithm)
        assert found.between.beta == pytest.approx(truth.between.beta, rel=0.15)
        for workers, size in ((2, MIB), (4, 5 * MIB), (16, 5 * MIB)):
            assert found.seconds(workers, size) == pytest.approx(truth.seconds(workers, size), rel=0.15)


def test_one_placement_determines_one_link_of_all_workers():
    truth = Link(2e-4, 5e-6, 4e-5, 3e-10, "ring")
    cases: Dict[str, Tuple[List[Tuple[int, int]], int]] = {
        "within": ([(2, 2), (3, 3), (4, 4)], 4),
        "between": ([(2, 1), (3, 1), (4, 1)], 1),
    }
    for name, (placements, per_host) in cases.items():
        measured = [Sample(n, size, truth.seconds(n, size), k) for n, k in placements for size in SIZES]
        found = fit_host_links(measured, "ring")
        assert getattr(found, name)[:4] == pytest.approx(truth[:4], rel=1e-6)
        assert found.known == (getattr(found, name),)
        assert found.per_host == per_host


def test_hosts_without_a_measurement_on_one_host_are_one_link():
    found = fit_host_links(samples(links("ring"), [4, 6, 8]), "ring")
    assert found.within is None
    assert found.seconds(64, 4 * MIB) == pytest.approx(links("ring").seconds(64, 4 * MIB), rel=0.05)


def test_similar_numbers_of_messages_do_not_separate_the_cost_of_a_call():
    found = fit_host_links(samples(links("ring"), [2, 3, 4]), "ring")
    assert (found.within.overhead, found.between.overhead) == (0.0, 0.0)
    assert found.between.alpha > BETWEEN.alpha
    for workers in (2, 3, 4):
        assert found.seconds(workers, MIB) == pytest.approx(links("ring").seconds(workers, MIB), rel=0.05)


def test_bounds_cost_the_same_at_the_measured_workers_and_enclose_the_prediction():
    for both in (links("ring"), links("mpi"), HostLinks(None, BETWEEN), HostLinks(WITHIN, None, 4)):
        low, high = both.bounds(4, MIB)
        for workers in (4, 8, 64, 1024):
            least, middle, most = (version.seconds(workers, MIB) for version in (low, both, high))
            assert least <= middle * (1 + 1e-9)
            assert middle <= most * (1 + 1e-9)
        if len(both.known) == 1:
            assert low.seconds(4, MIB) == pytest.approx(high.seconds(4, MIB)) == pytest.approx(both.seconds(4, MIB))
    low, high = links("ring").bounds(4, MIB)
    assert high.seconds(1024, MIB) > 1.5 * links("ring").seconds(1024, MIB) > 3 * low.seconds(1024, MIB)


def test_samples_that_do_not_determine_a_link_are_refused():
    with pytest.raises(ValueError, match="do not determine alpha_short, alpha, beta"):
        fit_host_links([Sample(2, 64, 1e-5, 2), *samples(links("ring"), [4])])
    with pytest.raises(ValueError, match="at least one"):
        fit_host_links([])
    with pytest.raises(ValueError, match="one worker does not communicate"):
        fit_host_links([*samples(links("ring"), [2, 4]), Sample(1, 64, 1e-5)])
