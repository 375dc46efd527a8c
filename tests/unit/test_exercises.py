"""What the experiments' report says of the trials, and which folder goes on."""

import json
from pathlib import Path
from typing import List, Sequence

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import settle
from lstm_dist.sweep.analysis import effects, summary
from lstm_dist.sweep.grid import DOCUMENT
from lstm_dist.sweep.runner import Epoch, TrialRow


def trial(factor: str, value: str, seed: int, trained: float, held_out: Sequence[float]) -> TrialRow:
    """One whose perplexity on the training text ends at `trained`, and on the other goes through `held_out`."""
    epochs = [Epoch(epoch=k, perplexity=trained, valid_perplexity=v) for k, v in enumerate(held_out, 1)]
    values = {**DOCUMENT, factor: value}
    return TrialRow(
        name=f"{factor}-{value}-s{seed}", values=values, seed=seed, state="finished", message="", command="",
        seconds=1.0, epochs=tuple(epochs),
    )  # fmt: skip


def said(factor: str, *found: "tuple[str, Sequence[float], Sequence[float]]") -> str:
    """The summary of values with what each seed's training came to, and its best on the held out text in epoch 2."""
    rows: List[TrialRow] = [
        trial(factor, value, seed, end, [2 * best, best, 1.5 * best])
        for value, trained, held_out in found
        for seed, (end, best) in enumerate(zip(trained, held_out))
    ]
    return summary(effects(rows))


def test_a_difference_larger_than_that_of_the_seeds_is_told():
    text = said("seq-len", ("17", [50, 51], [99, 101]), ("35", [60, 61], [120, 122]), ("70", [40, 41], [199, 201]))
    assert text == (
        "--seq-len: 17 is best on the held out text, with a perplexity of 100.0 after epoch 2; 70 is worst, with 200.0."
    )


def test_a_difference_that_seeds_make_as_well_is_none():
    text = said("hidden-size", ("64", [50, 51], [90, 110]), ("256", [50, 51], [95, 115]))
    assert text == "--hidden-size: no difference that can be told on the held out text, from 99.5 to 104.5 at best."


def test_values_that_seeds_cannot_tell_apart_are_best_together():
    text = said("seq-len", ("17", [50, 51], [99, 99.1]), ("35", [60, 61], [95, 104]), ("70", [40, 41], [199, 201]))
    assert text.startswith("--seq-len: 17 and 35 cannot be told apart and are best on the held out text, with ")
    assert text.endswith("; 70 is worst, with 200.0.")
    assert "no difference" in said("seq-len", ("17", [50], [99]), ("35", [50], [99]))


def test_single_trials_are_taken_at_their_word():
    assert said("seq-len", ("17", [50], [99]), ("35", [50], [100])) == (
        "--seq-len: 17 is best on the held out text, with a perplexity of 99.0 after epoch 2; 35 is worst, with 100.0; "
        "of single runs."
    )


def test_texts_of_other_lengths_are_not_held_against_each_other():
    text = said("max-chars", ("5000", [50, 51], [99, 101]), ("20000", [60, 61], [30, 31]))
    assert "from 5000 to 20000 characters the training perplexity goes from 50.5 to 60.5; " in text
    assert text.endswith("so that none is the best.")
    assert "from 5000 to all characters" in said("max-chars", ("5000", [50], [99]), ("0", [60], [30]))


@pytest.mark.parametrize(
    ("carried", "words"), [([80, 81], "makes the training perplexity 61 % higher: 80.5 against 50.0"),
                           ([49, 52], "makes no difference that can be told: 50.5 against 50.0")],
)  # fmt: skip
def test_what_carrying_the_state_through_random_sampling_does(carried: List[float], words: str):
    assert words in said("batches", ("random/window", [49, 51], [99, 101]), ("random/epoch", carried, [150, 151]))


def test_a_folder_goes_on_with_the_same_settings_only(tmp_path: Path):
    file = tmp_path / "out" / "setup.json"
    settle(file, {"a": 1, "b": (2, 3)}, "trials")
    settle(file, {"a": 1, "b": (2, 3)}, "trials")
    with pytest.raises(UserError, match=r"^--out .*/out: holds trials whose a was 1 and is 2: give another folder$"):
        settle(file, {"a": 2, "b": (2, 3)}, "trials")
    with pytest.raises(UserError, match="whose c was None and is 4"):
        settle(file, {"a": 1, "b": (2, 3), "c": 4}, "trials")
    settle(file, {"a": 1, "b": (2, 3), "c": 4}, "trials", {"c": 4})
    assert json.loads(file.read_bytes()) == {"a": 1, "b": [2, 3]}
    for text in ("[]", "{", "3"):
        file.write_text(text)
        with pytest.raises(UserError, match="setup.json in it cannot be read: give another folder"):
            settle(file, {"a": 1}, "trials")
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="setup.json in it cannot be read: give another folder"):
        settle(file, {"a": 1}, "trials")


def test_a_folder_of_somebody_else_is_left_alone(tmp_path: Path):
    (tmp_path / "precious").touch()
    with pytest.raises(UserError, match="holds something else: give a new folder") as caught:
        settle(tmp_path / "setup.json", {}, "trials")
    assert caught.value.status == ExitStatus.CANNOT_CREATE
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        settle(tmp_path / "precious" / "setup.json", {}, "trials")
