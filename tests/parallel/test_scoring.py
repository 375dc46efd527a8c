"""The loss of a text equals that of one float64 reader in order, for any number of workers and streams."""

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.errors import UserError
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.parameters import parameter_shapes
from lstm_dist.train.evaluator import WARM_UP, Evaluator
from tests.support import reference

V, H = 13, 6
TOKENS = np.random.default_rng(3).integers(0, V, 601).astype(np.uint8)


def model_of(scale: float, forgets: float = 0.0, layers: int = 1) -> "tuple[CharLSTM, dict]":
    """Return a model with weights of this scale, and its parameters in float64.

    `forgets` is added to the biases of the first layer's forget gates: far above 0, the cells forget nothing.
    """
    random = np.random.default_rng(7)
    named = {name: scale * random.standard_normal(shape) for name, shape in parameter_shapes(V, H, layers).items()}
    named["b_f"] = named["b_f"] + forgets
    named = {name: value.astype(np.float32) for name, value in named.items()}
    model = CharLSTM(V, H, mx.cpu(), layers)
    model.load(named, "test")
    return model, {name: value.astype(np.float64) for name, value in named.items()}


def expected(parameters: dict, tokens: np.ndarray) -> float:
    zeros = np.zeros((1, H * sum(name.startswith("W_hi") for name in parameters)))
    loss, _, _ = reference.window_loss(parameters, tokens[None, :-1], tokens[None, 1:], zeros, zeros)
    return loss / (len(tokens) - 1)


@pytest.mark.parametrize("streams", [3, 4, 7, 100])
@pytest.mark.parametrize("seq_len", [1, 35, 5000])
def test_loss_is_independent_of_streams_and_window_length(world, streams, seq_len):
    model, parameters = model_of(1.0)
    evaluator, read = Evaluator(TOKENS, streams, seq_len, world), []
    score = evaluator.evaluate(model, read.append)
    assert score.loss == pytest.approx(expected(parameters, TOKENS), rel=2e-6)
    assert score.chars == len(TOKENS) - 1
    total = world.sum([sum(read)], "read")[0]
    length = score.chars // streams
    assert total == streams * (score.rounds * length + min(WARM_UP, length)) + score.chars % streams
    assert evaluator.evaluate(model).loss == score.loss, "a repeated evaluation gives another loss"


def test_model_that_forgets_nothing_takes_several_rounds(world):
    """The text is read again until every stream starts with the final state of the preceding stream."""
    model, parameters = model_of(0.6, forgets=12.0)
    score = Evaluator(TOKENS, 5, 50, world).evaluate(model)
    assert score.loss == pytest.approx(expected(parameters, TOKENS), rel=1e-5)
    assert score.rounds > 1, "one round is enough, so this model forgets"
    forgetful, _ = model_of(0.6)
    assert Evaluator(TOKENS, 5, 50, world).evaluate(forgetful).rounds == 1


def test_state_of_every_layer_is_carried_between_streams(world):
    model, parameters = model_of(1.0, layers=2)
    assert Evaluator(TOKENS, 7, 35, world).evaluate(model).loss == pytest.approx(expected(parameters, TOKENS), rel=2e-6)


def test_streams_of_one_character_give_the_exact_loss(world):
    model, parameters = model_of(1.0)
    short = TOKENS[:8]
    assert Evaluator(short, 7, 5, world).evaluate(model).loss == pytest.approx(expected(parameters, short), rel=2e-6)


def test_too_few_characters_are_refused(world):
    with pytest.raises(UserError, match="^7 characters are too few for 7 streams$"):
        Evaluator(TOKENS[:7], 7, 5, world)
    with pytest.raises(UserError, match="^1 characters are too few"):
        Evaluator(TOKENS[:1], 7, 5, world)
