"""Random numbers are a function of (seed, purpose, counters); the recorded ones are part of every seeded result."""

import itertools
from typing import List, Tuple

import numpy as np
import pytest

from lstm_dist.model.parameters import initial_parameters
from lstm_dist.rng import Purpose, generator

SEEDS = (0, 1, 2**63 - 1)
COUNTERS: Tuple[Tuple[int, ...], ...] = ((), (0,), (1,), (0, 0), (0, 1))


def draws(seed: int, purpose: Purpose, *counters: int) -> List[int]:
    return generator(seed, purpose, *counters).integers(0, 2**62, 4).tolist()


def test_equal_keys_give_equal_numbers_regardless_of_other_draws():
    expected = draws(5, Purpose.SHUFFLE, 7)
    other = generator(5, Purpose.SHUFFLE, 6)
    other.random(1000)
    np.random.default_rng(0).random(10)
    assert draws(5, Purpose.SHUFFLE, 7) == expected


def test_distinct_keys_give_distinct_numbers():
    keys = list(itertools.product(SEEDS, Purpose, COUNTERS))
    seen = {number for seed, purpose, counters in keys for number in draws(seed, purpose, *counters)}
    assert len(seen) == 4 * len(keys)


def test_neighbouring_generators_are_uncorrelated():
    columns = [generator(0, purpose, k).standard_normal(4000) for purpose in Purpose for k in range(6)]
    correlation = np.corrcoef(columns) - np.eye(len(columns))
    assert abs(correlation).max() < 5 / np.sqrt(4000)


def test_purposes_are_never_renumbered():
    assert {p.name: p.value for p in Purpose} == {"INITIAL_WEIGHTS": 0, "SHUFFLE": 1, "SAMPLE": 2}


def test_numbers_equal_the_recorded_ones():
    assert generator(0, Purpose.SHUFFLE, 1).integers(0, 2**32, 3).tolist() == [1930064927, 1306955096, 4082805032]
    assert generator(0, Purpose.SHUFFLE, 1).permutation(10).tolist() == [0, 5, 4, 1, 6, 2, 7, 3, 9, 8]
    assert generator(7, Purpose.SAMPLE).random(2).tolist() == [0.8169432743302534, 0.0009783559339044956]


def test_initial_weights_equal_the_recorded_ones():
    weights = initial_parameters(3, 2, 0)
    np.testing.assert_allclose(weights["W_xi"][0], [0.012918689, -0.0022764034], rtol=1e-6)
    np.testing.assert_allclose(weights["W_hy"][1], [-0.00289007, -0.0024243977, -0.0025163984], rtol=1e-6)


@pytest.mark.parametrize("seed", SEEDS)
def test_smallest_and_largest_valid_seeds_are_accepted(seed: int):
    assert len(set(draws(seed, Purpose.SAMPLE))) == 4
