"""Choice between the gradient of all rows of W_x and that of a batch's rows."""

from pathlib import Path

import numpy as np

from lstm_dist.data.token_file import TOKENS, TokenFile, Tokens, npy_header
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import number_of_parameters
from lstm_dist.train.exchange_plan import ExchangePlan, mean_characters


def zipf(vocab_size: int, characters: int) -> np.ndarray:
    frequencies = 1 / np.arange(1, vocab_size + 1)
    return np.random.default_rng(0).choice(vocab_size, characters, p=frequencies / frequencies.sum())


def test_a_large_vocabulary_makes_the_rows_of_a_batch_worthwhile():
    plan = ExchangePlan.choose(zipf(1595, 50_000), 1, 32, 35, 1595, 256, 1)
    assert plan.uses_rows
    assert plan.batch_vocab_size == 1595
    assert 380 < plan.characters < 440
    assert plan.dense_numbers == FLAGS + number_of_parameters(1595, 256)
    assert 0.45 < plan.numbers / plan.dense_numbers < 0.52
    sent = f"{2 * plan.numbers / 1e6:.3g} of 4.61 MB"
    has = f"{plan.characters} of the 1,595 characters (rows of W_x)"
    assert plan.describe("float16") == f"gradients: {sent} a step, as a batch has about {has}"


def test_nearly_all_characters_a_small_model_or_many_streams_make_all_rows_faster():
    text = zipf(1595, 200_000)
    for streams, vocab_size, hidden_size in ((4096, 1595, 256), (32, 1595, 16), (2, 50, 8)):
        plan = ExchangePlan.choose(text % vocab_size, 1, streams, 35, vocab_size, hidden_size, 1)
        assert not plan.uses_rows
        assert plan.batch_vocab_size is None
        assert plan.numbers == plan.dense_numbers
        assert plan.describe("float32") == f"gradients: {4 * plan.numbers / 1e6:.3g} MB a step"


def test_sending_bytes_and_reading_a_file_count(tmp_path: Path):
    """With 400 streams of 5 and 48 hidden units, the rows save 0.8 MB, which is about what they cost one worker."""
    text = zipf(1595, 50_000).astype("<u2")
    (tmp_path / TOKENS).write_bytes(npy_header(text.dtype, len(text)) + text.tobytes())
    file = TokenFile.open(tmp_path, 1595, len(text))

    def uses_rows(tokens: Tokens, workers: int) -> bool:
        return ExchangePlan.choose(tokens, workers, 400, 5, 1595, 48, 1).uses_rows

    assert (uses_rows(text, 1), uses_rows(text, 2)) == (False, True)
    assert (uses_rows(file, 1), uses_rows(file, 2)) == (False, False)


def test_rows_of_upper_layers_are_always_exchanged():
    one, two = (ExchangePlan.choose(zipf(1595, 50_000), 1, 32, 35, 1595, 256, layers) for layers in (1, 2))
    assert two.numbers - one.numbers == 2 * 256 * 4 * 256 + 4 * 256


def test_characters_are_counted_at_several_places_of_the_streams():
    text = np.concatenate([np.zeros(300), np.arange(300)]).astype(np.int32)  # one stream: nothing new, then all new
    assert 20 < mean_characters(text, 1, 50, 300) < 40
    assert mean_characters(text[:20], 2, 50, 300) == 1, "a stream that is shorter than the window"
