"""Coverage of the confidence intervals over thousands of draws, and fits of the laws of speedup."""

import math
from typing import List

import numpy as np
import pytest

from lstm_dist.experiments.stats import Estimate, mean, ratio
from lstm_dist.scaling.speedup_laws import Law, fit_amdahl, fit_usl

WORKERS = [1, 2, 4, 8, 16, 32]
DRAWS = 4000


def speedups(law: Law, noise: float = 0.0, seed: int = 0) -> List[float]:
    factors = np.exp(noise * np.random.default_rng(seed).standard_normal(len(WORKERS)))
    return [law.speedup(n) * factor for n, factor in zip(WORKERS, factors)]


def coverage(estimates: List[Estimate], truth: float) -> float:
    return sum(estimate.low <= truth <= estimate.high for estimate in estimates) / len(estimates)


def lognormal(generator: np.random.Generator, center: float, noise: float, size: int) -> np.ndarray:
    return center * np.exp(noise * generator.standard_normal(size))


def test_a_mean_is_geometric_with_students_interval():
    estimate = mean([1.0, 10.0, 100.0])
    # Logarithms to base 10 are 0, 1, 2: t(0.975, 2) = 4.30265 and a standard error of 1 / sqrt(3).
    assert estimate[:3] == pytest.approx((10.0, 10 ** (1 - 4.30265 / 3**0.5), 10 ** (1 + 4.30265 / 3**0.5)), rel=1e-4)


def test_a_ratio_has_welchs_degrees_of_freedom():
    """The logarithms are 0, 2 and 0, 1, 2: variances of the means 1 and 1/3, (4/3)^2 / (1 / 1 + (1/9) / 2) = 1.684."""
    estimate = ratio(np.exp([0.0, 2.0]), np.exp([0.0, 1.0, 2.0]))
    assert estimate.value == pytest.approx(1.0)
    assert math.log(estimate.high) == pytest.approx(5.1747 * math.sqrt(4 / 3), rel=1e-3)
    assert estimate.low * estimate.high == pytest.approx(1.0)


@pytest.mark.parametrize("size", [2, 3, 10])
def test_the_interval_of_a_mean_covers_95_percent(size: int):
    generator = np.random.default_rng(size)
    estimates = [mean(lognormal(generator, 5000.0, 0.1, size)) for _ in range(DRAWS)]
    assert 0.93 < coverage(estimates, 5000.0) < 0.97


@pytest.mark.parametrize(("above", "below"), [((5, 0.05), (5, 0.05)), ((10, 0.02), (5, 0.2)), ((3, 0.1), (6, 0.05))])
def test_the_interval_of_a_ratio_covers_95_percent(above, below):
    generator = np.random.default_rng(above[0])
    estimates = [
        ratio(lognormal(generator, 900.0, above[1], above[0]), lognormal(generator, 300.0, below[1], below[0]))
        for _ in range(DRAWS)
    ]
    assert 0.93 < coverage(estimates, 3.0) < 0.97


def test_a_single_measurement_has_no_interval():
    for estimate in (mean([7.0]), ratio([7.0], [1.0, 1.1]), ratio([7.0, 7.1], [1.0]), ratio([7.0], [1.0])):
        assert estimate.value == pytest.approx(7.0, rel=0.1)
        assert math.isnan(estimate.low)
        assert math.isnan(estimate.high)


def test_equal_values_have_an_interval_of_zero_width():
    assert mean([3.0, 3.0, 3.0])[:3] == pytest.approx((3.0, 3.0, 3.0))
    assert ratio([6.0, 6.0], [3.0, 3.0])[:3] == pytest.approx((2.0, 2.0, 2.0))
    one_sided = ratio([6.0, 6.0], [3.0, 3.3])
    assert one_sided.low < one_sided.value < one_sided.high


def test_ratio_to_itself_is_1_but_an_equal_copy_has_an_interval():
    reference = [1.0, 1.2, 1.1]
    assert ratio(reference, reference) == Estimate(1.0, 1.0, 1.0)
    assert ratio(reference, list(reference)).high > 1.1


def test_a_multiple_has_the_interval_and_the_repeats_of_a_multiple():
    assert Estimate(3.0, 2.0, 4.0, (1.0, 5.0)).scaled(0.25) == (0.75, 0.5, 1.0, (0.25, 1.25))


@pytest.mark.parametrize("bad", [[], [1.0, math.nan], [1.0, 0.0], [math.inf, 1.0]])
def test_invalid_measurements_are_refused(bad):
    for estimate in (mean, lambda b: ratio(b, [1.0]), lambda b: ratio([1.0], b), lambda b: ratio(b, b)):
        with pytest.raises(ValueError, match="numbers above 0"):
            estimate(bad)


def test_the_laws_are_fitted_exactly_without_noise():
    amdahl, usl = Law("", 0.05, 0.0), Law("", 0.03, 0.0004)
    found = fit_amdahl(WORKERS, speedups(amdahl))
    assert (found.name, found.contention, found.coherency) == ("Amdahl", pytest.approx(0.05, rel=1e-9), 0.0)
    assert found.residuals == pytest.approx([0.0] * len(WORKERS), abs=1e-12)
    found = fit_usl(WORKERS, speedups(usl))
    assert (found.name, found.contention, found.coherency) == (
        "USL",
        pytest.approx(0.03, rel=1e-9),
        pytest.approx(0.0004, rel=1e-9),
    )
    assert found.residuals == pytest.approx([0.0] * len(WORKERS), abs=1e-12)
    assert fit_usl(WORKERS, speedups(amdahl)).coherency == pytest.approx(0.0, abs=1e-12)


def test_the_laws_are_fitted_within_bounds_in_noise_of_two_percent():
    truth = Law("", 0.05, 0.001)
    found = [fit_usl(WORKERS, speedups(truth, 0.02, seed)) for seed in range(200)]
    assert all(abs(law.contention - 0.05) < 0.03 for law in found)
    assert all(abs(law.coherency - 0.001) < 0.0007 for law in found)
    assert np.mean([law.contention for law in found]) == pytest.approx(0.05, abs=0.002)
    assert np.mean([law.coherency for law in found]) == pytest.approx(0.001, abs=0.0001)
    only = [fit_amdahl(WORKERS, speedups(Law("", 0.05, 0.0), 0.02, seed)).contention for seed in range(200)]
    assert max(abs(contention - 0.05) for contention in only) < 0.005


def test_residuals_are_measured_over_fitted_minus_1():
    measured = speedups(Law("", 0.1, 0.0))
    measured[3] *= 1.1
    law = fit_amdahl(WORKERS, measured)
    assert law.residuals == pytest.approx([s / law.speedup(n) - 1 for n, s in zip(WORKERS, measured)])
    assert max(law.residuals) == law.residuals[3] == pytest.approx(0.1, abs=0.03)


def test_speedups_above_n_do_not_give_negative_contention():
    for fit in (fit_amdahl, fit_usl):
        law = fit([1, 2, 4], [1.0, 2.2, 4.4])
        assert (law.contention, law.coherency, law.peak, law.limit) == (0.0, 0.0, math.inf, math.inf)
        assert law.residuals == pytest.approx([0.0, 0.1, 0.1])


def test_without_speedup_the_contention_is_1():
    law = fit_amdahl([1, 2, 4], [1.0, 1.0, 1.0])
    assert (law.contention, law.peak, law.limit) == (pytest.approx(1.0), pytest.approx(1.0), pytest.approx(1.0))
    assert fit_amdahl([1, 2], [1.0, 0.8]).contention == pytest.approx(1.5)
    assert fit_amdahl([1, 2], [1.0, 0.8]).limit == 1.0


def test_the_peak_is_the_largest_speedup():
    law = Law("", 0.02, 0.0005)
    assert law.peak == pytest.approx(44.27, abs=0.01)
    assert law.limit == law.speedup(law.peak) == max(law.limit, *(law.speedup(n) for n in range(1, 200)))
    assert (Law("", 0.02, 0.0).peak, Law("", 0.02, 0.0).limit) == (math.inf, 50.0)
    assert (Law("", 0.5, 2.0).peak, Law("", 0.5, 2.0).limit) == (1.0, 1.0)  # two workers are slower than one


@pytest.mark.parametrize(
    ("fit", "workers"), [(fit_amdahl, [1]), (fit_amdahl, [1, 1]), (fit_usl, [2]), (fit_usl, [1, 2]), (fit_usl, [4, 4])]
)
def test_too_few_numbers_of_workers_are_refused(fit, workers):
    with pytest.raises(ValueError, match="do not determine contention"):
        fit(workers, [0.9 * n for n in workers])


def test_amdahls_law_needs_one_point_of_several_workers():
    assert fit_amdahl([4], [2.0]).contention == pytest.approx(1 / 3)


@pytest.mark.parametrize("bad", [math.nan, 0.0, -1.0, math.inf])
def test_invalid_speedups_are_refused(bad):
    for fit in (fit_amdahl, fit_usl):
        with pytest.raises(ValueError, match="numbers above 0"):
            fit([1, 2, 4], [1.0, bad, 3.0])


@pytest.mark.parametrize("measured", [[1.5], [1.0, 1.5, 2.0, 2.5]])
def test_different_numbers_of_workers_and_speedups_are_refused(measured):
    with pytest.raises(ValueError, match="inhomogeneous"):
        fit_amdahl([1, 2, 4], measured)


@pytest.mark.parametrize("baseline", [1, 3, 4, 8])
def test_the_laws_are_those_of_one_worker_whatever_the_baseline(baseline: int):
    truth = Law("", 0.03, 0.0004)
    workers = [n for n in (4, 8, 16, 64) if n >= baseline]
    relative = [baseline * truth.speedup(n) / truth.speedup(baseline) for n in workers]
    law = fit_usl(workers, relative, baseline)
    assert (law.contention, law.coherency) == (pytest.approx(0.03), pytest.approx(0.0004))
    assert [law.speedup(n) for n in workers] == pytest.approx(relative)
    assert law.speedup(baseline) == pytest.approx(baseline)
    assert law.peak == pytest.approx(truth.peak)
    assert law.limit == pytest.approx(baseline * truth.limit / truth.speedup(baseline))
    assert max(map(abs, law.residuals)) < 1e-9
    amdahl = Law("", 0.05, 0.0)
    measured = [baseline * amdahl.speedup(n) / amdahl.speedup(baseline) for n in (16, 64)]
    assert fit_amdahl([16, 64], measured, baseline).contention == pytest.approx(0.05)


def test_a_fall_of_throughput_that_no_law_allows_is_refused():
    assert fit_amdahl([8], [4.0], 4).contention == pytest.approx(1.0)  # as fast as 4: all work is serial
    with pytest.raises(ValueError, match="beyond 4 workers, throughput falls faster than the law allows"):
        fit_amdahl([8], [3.4], 4)
