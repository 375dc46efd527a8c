"""Distributions of step times, of jobs whose steps are known."""

import math

import numpy as np
import pytest

from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.step_distribution import StepDistribution, step_distributions, steps_needed
from tests.support.profiled_job import group_of, profiled_job

WIRE = 0.002


def distribution(*rows: TrainRow) -> StepDistribution:
    (found,) = step_distributions([group_of(*rows)])
    return found


def row(useful: np.ndarray, repeat: int = 1) -> TrainRow:
    return profiled_job(useful, WIRE, repeat=repeat)


def equal(steps: int, workers: int, seconds: float = 0.010) -> np.ndarray:
    return np.full((steps, workers), seconds)


def test_percentiles_are_those_of_the_slowest_worker_of_each_step():
    useful = np.stack([np.arange(1, 201) * 1e-3, np.full(200, 0.05)], axis=1)
    np.random.default_rng(0).shuffle(useful)
    found = distribution(row(useful))
    slowest = np.maximum(useful[:, 0], 0.05) + WIRE
    whole = found.whole
    assert (whole.steps, whole.fastest, whole.slowest) == (200, pytest.approx(0.052), pytest.approx(0.202))
    for value, percentile in zip(whole[2:7], (25, 50, 75, 95, 99)):
        assert value == pytest.approx(np.percentile(slowest, percentile))
    assert found.slowest_step == 25 * (1 + int(slowest.argmax()))


def test_every_worker_has_a_distribution_of_its_useful_time():
    useful = np.stack([np.arange(1, 101) * 1e-3, np.full(100, 0.05)], axis=1)
    first, second = distribution(row(useful)).workers
    assert (first.rank, first.host, second.rank, second.host) == (0, "node0", 1, "node1")
    assert (first.useful.median, first.useful.slowest) == pytest.approx((0.0505, 0.1))
    assert (second.useful.median, second.useful.slowest) == pytest.approx((0.05, 0.05))


def test_every_host_of_a_rank_is_named():
    """Jobs of a Slurm array are on other nodes in each repetition."""
    first, second = row(equal(5, 2)), row(equal(5, 2), repeat=2)
    moved = tuple(one.model_copy(update={"host": f"{one.host}b"}) for one in second.times)
    found = distribution(first, second.model_copy(update={"times": moved}))
    assert [worker.host for worker in found.workers] == ["node0, node0b", "node1, node1b"]


@pytest.mark.parametrize(("steps", "has_95", "has_99"), [(1, 0, 0), (19, 0, 0), (20, 1, 0), (99, 1, 0), (100, 1, 1)])
def test_percentiles_of_too_few_steps_are_unknown(steps: int, has_95: int, has_99: int):
    whole = distribution(row(equal(steps, 1))).whole
    assert math.isfinite(whole.percentile_95) == has_95
    assert math.isfinite(whole.percentile_99) == has_99
    assert whole.median == pytest.approx(0.012)
    assert (steps_needed(95), steps_needed(99)) == (20, 100)


def test_the_slowest_step_is_found_in_its_job():
    slow = equal(5, 2)
    slow[2, 1] = 0.030
    found = distribution(row(equal(5, 2)), row(slow, repeat=2))
    assert (found.slowest_job, found.slowest_step) == ("weak-n002-r2", 75)
    assert found.whole.slowest == pytest.approx(0.030 + WIRE)


def test_equal_steps_have_no_jitter():
    found = distribution(row(equal(20, 4)))
    assert found.jitter == pytest.approx(0, abs=1e-12)
    assert not found.is_bound_by_jitter


def test_a_worker_that_is_always_slow_is_no_jitter():
    useful = equal(20, 4)
    useful[:, 3] = 0.030
    assert distribution(row(useful)).jitter == pytest.approx(0, abs=1e-12)


def test_workers_that_are_slow_now_and_then_are_jitter():
    """In every second step one of four workers takes 20 instead of 10 ms: the mean step is 5 ms longer, 17 ms."""
    useful = equal(40, 4)
    for step in range(0, 40, 2):
        useful[step, step // 2 % 4] = 0.020
    found = distribution(row(useful))
    assert found.jitter == pytest.approx(5 / 17)
    assert found.is_bound_by_jitter


def test_a_job_that_is_slower_as_a_whole_is_no_jitter():
    found = distribution(row(equal(10, 2)), row(equal(10, 2, 0.020), repeat=2))
    assert found.jitter == pytest.approx(0, abs=1e-12)


def test_jobs_without_profiled_steps_have_no_distribution():
    job = row(equal(1, 1)).model_copy(update={"times": ()})
    assert step_distributions([group_of(job)]) == []
