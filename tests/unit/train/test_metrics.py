"""Perplexity and bits per character are computed from the loss."""

import math

import pytest

from lstm_dist.train.metrics import bits_per_char, has_diverged, perplexity


@pytest.mark.parametrize("size", [1, 2, 37, 1465, 10**6])
def test_perplexity_of_a_uniform_guess_is_the_alphabet_size(size: int):
    assert perplexity(math.log(size)) == pytest.approx(size)
    assert bits_per_char(math.log(size)) == pytest.approx(math.log2(size))


def test_certain_and_correct_guess_has_perplexity_1():
    assert perplexity(0.0) == 1.0
    assert bits_per_char(0.0) == 0.0


@pytest.mark.parametrize("loss", [0.1, 1.0, 5.29])
def test_bits_and_perplexity_agree(loss: float):
    assert 2 ** bits_per_char(loss) == pytest.approx(perplexity(loss))


def test_perplexity_of_a_huge_loss_is_infinite():
    assert math.isfinite(perplexity(690.0))
    assert perplexity(1e4) == math.inf
    assert perplexity(math.inf) == math.inf


@pytest.mark.parametrize(
    ("perplexity", "characters", "expected"),
    [(1595.0, 1595, False), (3190.0, 1595, False), (3190.1, 1595, True), (math.inf, 1595, True), (2.0, 1, False)],
)
def test_divergence_is_a_perplexity_of_more_than_twice_that_of_guessing(
    perplexity: float, characters: int, expected: bool
):
    assert has_diverged(perplexity, characters) is expected
