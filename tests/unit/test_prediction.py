"""What a step of 1024 workers would take is arithmetic on what a few were seen to take."""

import math

import pytest

from lstm_dist.scaling.allreduce_model import Link
from lstm_dist.scaling.prediction import ComputeCost, fit_compute, predict_strong, predict_weak

LINK = Link(overhead=1e-3, alpha_short=0.0, alpha=1e-4, beta=1e-9)
SIZE = 10**7


def test_weak_scaling_computes_the_same_and_communicates_more():
    steps = predict_weak(0.03, SIZE, LINK)
    assert [step.workers for step in steps] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert {step.compute for step in steps} == {0.03}
    assert steps[0] == (1, 0.03, 0.0)
    assert steps[-1].step == pytest.approx(0.03 + 1e-3 + 20 * 1e-4 + 2 * 1023 / 1024 * 1e-2)
    assert [step.communication for step in steps] == sorted(step.communication for step in steps)


def test_strong_scaling_shares_the_streams_until_each_worker_has_one():
    steps = predict_strong(24, ComputeCost(0.002, 0.001), SIZE, LINK)
    assert [step.workers for step in steps] == [1, 2, 4, 8, 16]
    assert [step.compute for step in steps] == pytest.approx(
        [0.026, 0.014, 0.008, 0.005, 0.004]
    )  # 16 share 24: two each
    assert predict_strong(4096, ComputeCost(0.002, 0.001), SIZE, LINK)[-1].compute == pytest.approx(0.006)


def test_the_time_of_a_share_is_found_between_and_beyond_what_was_measured():
    found = fit_compute([32, 16, 8, 8], [0.034, 0.018, 0.010, 0.010])
    assert found == pytest.approx((0.002, 0.001))
    assert found.seconds(1) == pytest.approx(0.003)


def test_a_time_that_falls_faster_than_the_streams_does_not_go_below_zero():
    assert fit_compute([32, 16], [0.04, 0.01]).base == 0.0
    assert fit_compute([32, 16], [0.01, 0.02]).per_stream == 0.0


def test_one_share_or_none_or_what_is_no_time_is_refused():
    for streams, seconds in (([32], [0.03]), ([32, 32], [0.03, 0.04])):
        with pytest.raises(ValueError, match="do not determine base, per_stream"):
            fit_compute(streams, seconds)
    with pytest.raises(ValueError, match="numbers above 0"):
        fit_compute([32, 16], [0.03, math.nan])
