"""Factors of the efficiency, of jobs whose losses are known."""

from typing import List

import numpy as np
import pytest

from lstm_dist.scaling.efficiency_tree import FACTORS, EfficiencyTree, efficiency_trees
from lstm_dist.scaling.profiled_steps import profiled_jobs
from lstm_dist.scaling.records import TrainRow
from tests.support.profiled_job import group_of, profiled_job

STEPS = 12


def equal(workers: int, seconds: float = 0.010) -> np.ndarray:
    return np.full((STEPS, workers), seconds)


def tree(*rows: TrainRow) -> EfficiencyTree:
    """Return the tree of a group, relative to a single worker that takes 10 ms for 8 streams."""
    return efficiency_trees([group_of(profiled_job(equal(1))), group_of(*rows)])[-1]


def factors(found: EfficiencyTree) -> List[float]:
    return [getattr(found, name) for name in FACTORS]


def test_nothing_is_lost_in_perfect_balance():
    found = tree(profiled_job(equal(4)))
    assert factors(found) == pytest.approx([1, 1, 1, 1])
    assert found.global_efficiency == pytest.approx(1)
    assert found.lowest_factor is None


def test_one_slow_worker_lowers_load_balance():
    """Three workers take 10 ms and one 20 ms: 12.5 on average, of steps of 20 ms."""
    useful = equal(4)
    useful[:, 2] = 0.020
    found = tree(profiled_job(useful))
    assert factors(found) == pytest.approx([12.5 / 20, 1, 1, 10 / 12.5])
    assert found.lowest_factor == "load_balance"


def test_alternating_slow_workers_lower_serialization():
    """Every worker takes 12.5 ms on average, and every step waits for one that takes 20 ms."""
    useful = equal(4)
    useful[np.arange(STEPS), np.arange(STEPS) % 4] = 0.020
    found = tree(profiled_job(useful))
    assert factors(found) == pytest.approx([1, 12.5 / 20, 1, 10 / 12.5])
    assert found.lowest_factor == "serialization"


def test_communication_lowers_transfer():
    found = tree(profiled_job(equal(4), wire=0.006))
    assert factors(found) == pytest.approx([1, 1, 10 / 16, 1])
    assert found.global_efficiency == pytest.approx(10 / 16)
    assert found.lowest_factor == "transfer"


def test_work_that_does_not_shrink_with_the_streams_lowers_computation_scaling():
    """Four workers share 8 streams; of the 10 ms of one worker, each of them needs 2 ms whatever its streams."""
    found = tree(profiled_job(equal(4, 0.002 + 0.008 / 4), streams=8))
    assert factors(found) == pytest.approx([1, 1, 1, 10 / 16])
    assert found.lowest_factor == "computation_scaling"


def test_another_slow_worker_in_each_repetition_is_imbalance():
    one, other = equal(2), equal(2)
    one[:, 0], other[:, 1] = 0.020, 0.020
    found = tree(profiled_job(one), profiled_job(other, repeat=2))
    assert factors(found)[:2] == pytest.approx([15 / 20, 1])


def test_the_product_of_the_factors_is_the_useful_share_of_a_step():
    useful = np.random.default_rng(3).uniform(0.002, 0.03, (2, STEPS, 5))
    found = tree(*(profiled_job(of_job, wire=0.004, repeat=k + 1) for k, of_job in enumerate(useful)))
    share = useful.mean() / (useful.max(axis=2).mean() + 0.004)
    assert found.parallel_efficiency == pytest.approx(share, rel=1e-12)
    assert found.global_efficiency == pytest.approx(share * 0.010 / useful.mean(), rel=1e-12)
    assert np.prod(factors(found)) == pytest.approx(found.global_efficiency, rel=1e-12)
    assert all(0 < factor < 1 for factor in factors(found)[:3])


def test_repetitions_count_by_their_steps():
    found = tree(profiled_job(equal(2)), profiled_job(equal(2, 0.020)[:4], repeat=2))
    assert found.seconds.useful == pytest.approx((STEPS * 0.010 + 4 * 0.020) / (STEPS + 4))


def test_the_baseline_is_the_smallest_number_of_workers():
    """Its computation scaling is 1; its parallel efficiency is its own, as it is relative to no other job."""
    ranks = 0.010 + 5e-4 * np.arange(8)
    useful = {workers: np.tile(ranks[:workers], (STEPS, 1)) for workers in (4, 8)}
    four, eight = efficiency_trees([group_of(profiled_job(useful[workers])) for workers in (4, 8)])
    assert four.baseline is eight.baseline is four.group
    assert four.computation_scaling == 1
    assert four.load_balance == pytest.approx(10.75 / 11.5)
    assert eight.computation_scaling == pytest.approx(10.75 / 11.75)


def test_a_step_that_a_worker_did_not_record_is_left_out():
    useful = equal(2)
    useful[3] = 0.020
    row = profiled_job(useful)
    cut = row.model_copy(update={"times": tuple(one for one in row.times if (one.step, one.rank) != (100, 1))})
    assert [len(job.steps) for job in profiled_jobs([row, cut])] == [STEPS, STEPS - 1]
    assert tree(cut).computation_scaling == pytest.approx(1)


@pytest.mark.parametrize("profiles", [0, 1])
def test_jobs_without_a_complete_profiled_step_have_no_tree(profiles: int):
    row = profiled_job(equal(2))
    assert efficiency_trees([group_of(row.model_copy(update={"times": row.times[:profiles]}))]) == []
