"""Perplexity and bits per character are computed from the loss."""

import math

import pytest

from lstm_dist.train.metrics import bits_per_char, perplexity


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
