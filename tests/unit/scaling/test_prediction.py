"""Predictions of the step time from a worker's compute and a link."""

import math

import pytest

from lstm_dist.scaling.allreduce_model import Link
from lstm_dist.scaling.prediction import WORKERS, ComputeCost, fit_compute, predict_strong, predict_weak

LINK = Link(overhead=1e-3, alpha_short=0.0, alpha=1e-4, beta=1e-9)
SIZES = dict.fromkeys(WORKERS, 10**7)


def test_weak_scaling_has_constant_compute_and_growing_communication():
    steps = predict_weak(0.03, SIZES, LINK)
    assert [step.workers for step in steps] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert {step.compute for step in steps} == {0.03}
    assert steps[0] == (1, 0.03, 0.0)
    assert steps[-1].step == pytest.approx(0.03 + 1e-3 + 20 * 1e-4 + 2 * 1023 / 1024 * 1e-2)
    assert [step.communication for step in steps] == sorted(step.communication for step in steps)


def test_every_number_of_workers_sends_bytes_of_its_own():
    sizes = {workers: 10**6 * workers for workers in WORKERS}
    for steps in (predict_weak(0.03, sizes, LINK), predict_strong(2048, ComputeCost(0.002, 0.001), sizes, LINK)):
        assert [step.communication for step in steps] == [LINK.seconds(n, 10**6 * n) for n in WORKERS]


def test_strong_scaling_ends_where_each_worker_has_one_stream():
    steps = predict_strong(24, ComputeCost(0.002, 0.001), SIZES, LINK)
    assert [step.workers for step in steps] == [1, 2, 4, 8, 16]
    assert [step.compute for step in steps] == pytest.approx(
        [0.026, 0.014, 0.008, 0.005, 0.004]
    )  # 24 streams, 16 workers: at most two each
    assert predict_strong(4096, ComputeCost(0.002, 0.001), SIZES, LINK)[-1].compute == pytest.approx(0.006)


def test_compute_is_linear_in_the_streams():
    found = fit_compute([32, 16, 8, 8], [0.034, 0.018, 0.010, 0.010])
    assert found == pytest.approx((0.002, 0.001))
    assert found.seconds(1) == pytest.approx(0.003)


def test_compute_costs_are_not_negative():
    assert fit_compute([32, 16], [0.04, 0.01]).base == 0.0
    assert fit_compute([32, 16], [0.01, 0.02]).per_stream == 0.0


def test_a_single_share_and_invalid_times_are_refused():
    for streams, seconds in (([32], [0.03]), ([32, 32], [0.03, 0.04])):
        with pytest.raises(ValueError, match="do not determine base, per_stream"):
            fit_compute(streams, seconds)
    with pytest.raises(ValueError, match="numbers above 0"):
        fit_compute([32, 16], [0.03, math.nan])
