"""Text generation: exactly N new characters, chosen greedily or sampled reproducibly."""

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.generate import choose, continue_text
from lstm_dist.model.parameters import parameter_shapes
from tests.support.reference import window_loss

VOCABULARY = Vocabulary("春夏秋冬风花雪月")
V, H = len(VOCABULARY), 6


@pytest.fixture(scope="module", params=[1, 2], ids=["1 layer", "2 layers"])
def model(request: pytest.FixtureRequest) -> CharLSTM:
    """Return a model with weights far from zero, so that its output depends on the whole text that it has read."""
    random = np.random.default_rng(3)
    model = CharLSTM(V, H, mx.cpu(), request.param)
    shapes = parameter_shapes(V, H, request.param)
    scale = {"W": 2.0, "b": 0.2}
    model.load({k: random.normal(0, scale[k[0]], shape).astype(np.float32) for k, shape in shapes.items()}, "test")
    return model


def likeliest_by_the_reference(model: CharLSTM, prefix: str, length: int) -> str:
    """Return the greedy continuation by the reference, which reads the whole text again for each character.

    The most probable character is the target with the least loss.
    """
    p = {name: value.astype(np.float64) for name, value in model.parameters.to_named().items()}
    tokens = VOCABULARY.encode(prefix).tolist()
    for _ in range(length):
        zero = np.zeros((1, model.layers * H))
        inputs = np.array([tokens])
        losses = [window_loss(p, inputs, np.array([[*tokens[1:], k]]), zero, zero)[0] for k in range(V)]
        tokens.append(int(np.argmin(losses)))
    return VOCABULARY.decode(tokens)


@pytest.mark.parametrize("prefix", ["春", "雪月", "风花雪月风花"])
def test_greedy_text_equals_that_of_the_reference(model: CharLSTM, prefix: str):
    text = continue_text(model, VOCABULARY, prefix, 25)
    assert text == likeliest_by_the_reference(model, prefix, 25)
    assert len(set(text[len(prefix) :])) > 3


def test_text_depends_on_the_first_character_of_the_prefix(model: CharLSTM):
    continued = {continue_text(model, VOCABULARY, first + "春夏", 8)[3:] for first in VOCABULARY.characters}
    assert len(continued) > 4


@pytest.mark.parametrize("temperature", [0.0, 0.8])
@pytest.mark.parametrize("length", [1, 2, 30])
def test_exactly_n_new_characters_are_generated(model: CharLSTM, length: int, temperature: float):
    text = continue_text(model, VOCABULARY, "风花", length, temperature)
    assert text.startswith("风花")
    assert len(text) == 2 + length
    assert continue_text(model, VOCABULARY, "风花", 40, temperature).startswith(text)


def test_sampling_depends_on_the_seed_and_is_reproducible(model: CharLSTM):
    def drawn(seed: int) -> str:
        return continue_text(model, VOCABULARY, "风", 40, temperature=1.5, top_k=5, seed=seed)

    assert drawn(1) == drawn(1)
    assert len({drawn(seed) for seed in range(5)}) == 5
    assert drawn(1) != continue_text(model, VOCABULARY, "风", 40)


def test_seed_has_no_effect_without_a_temperature(model: CharLSTM):
    assert len({continue_text(model, VOCABULARY, "风", 40, seed=seed) for seed in range(5)}) == 1


def test_sampling_does_not_change_the_model(model: CharLSTM):
    before = model.parameters.flat.asnumpy()
    continue_text(model, VOCABULARY, "风", 10, temperature=1.0)
    np.testing.assert_array_equal(model.parameters.flat.asnumpy(), before)


def test_missing_character_is_reported(model: CharLSTM):
    with pytest.raises(UserError, match=r"lacks '雨' \(U\+96E8\)"):
        continue_text(model, VOCABULARY, "风雨", 10)


LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.25, 0.05], np.float32))


def frequencies(temperature: float, top_k: "int | None" = None, logits: np.ndarray = LOGITS) -> np.ndarray:
    random = np.random.default_rng(0)
    drawn = [choose(logits, temperature, top_k, random) for _ in range(2000)]
    return np.bincount(drawn, minlength=len(logits)) / len(drawn)


def test_temperature_one_gives_the_distribution_of_the_model():
    np.testing.assert_allclose(frequencies(1.0), np.exp(LOGITS), atol=0.03)


def test_temperature_sharpens_or_flattens_the_distribution():
    np.testing.assert_allclose(frequencies(0.5), np.exp(2 * LOGITS) / np.exp(2 * LOGITS).sum(), atol=0.03)
    np.testing.assert_allclose(frequencies(2.0), np.exp(LOGITS / 2) / np.exp(LOGITS / 2).sum(), atol=0.03)


def test_top_k_samples_only_the_k_most_probable():
    np.testing.assert_allclose(frequencies(1.0, top_k=3), np.array([0, 0.4, 0.2, 0.25, 0]) / 0.85, atol=0.03)
    np.testing.assert_array_equal(frequencies(1.0, top_k=1), [0, 1, 0, 0, 0])
    for more in (5, 6, 10**30):
        np.testing.assert_array_equal(frequencies(1.0, top_k=more), frequencies(1.0))


def test_top_k_keeps_exactly_k_characters_despite_ties():
    np.testing.assert_allclose(frequencies(1.0, top_k=2, logits=np.zeros(4, np.float32)), [0.5, 0.5, 0, 0], atol=0.03)


def test_greedy_choice_takes_the_first_of_equal_logits():
    assert choose(np.array([1, 3, 3, 2], np.float32), 0.0, None, np.random.default_rng(0)) == 1


@pytest.mark.parametrize("scale", [1.0, 1e30])
def test_extreme_temperatures_are_greedy_and_uniform(scale: float):
    random = np.random.default_rng(0)
    logits = LOGITS * np.float32(scale)
    assert {choose(logits, 5e-324, None, random) for _ in range(50)} == {1}
    assert {choose(logits, 1e-9, 3, random) for _ in range(50)} == {1}
    np.testing.assert_allclose(frequencies(1e308), np.full(5, 0.2), atol=0.03)
