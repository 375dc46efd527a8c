"""The summary of the report of jobs/experiment.py, and the check of the folder that an experiment continues."""

import json
from pathlib import Path
from typing import List, Sequence

import pytest

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.folder import create_or_continue
from lstm_dist.sweep.analysis import effects, summary
from lstm_dist.sweep.grid import CHAPTER
from lstm_dist.sweep.runner import EpochPerplexity, TrialRow


def trial(factor: str, value: str, seed: int, training: float, validation: Sequence[float]) -> TrialRow:
    """Return a trial with this last training perplexity and these validation perplexities by epoch."""
    epochs = [EpochPerplexity(epoch=k, perplexity=training, valid_perplexity=v) for k, v in enumerate(validation, 1)]
    values = {**CHAPTER, factor: value}
    return TrialRow(
        name=f"{factor}-{value}-s{seed}", values=values, seed=seed, state="finished", message="", command="",
        seconds=1.0, epochs=tuple(epochs),
    )  # fmt: skip


def said(factor: str, *found: "tuple[str, Sequence[float], Sequence[float]]") -> str:
    """Return the summary for values with, by seed, the last training and the best validation perplexity (epoch 2)."""
    rows: List[TrialRow] = [
        trial(factor, value, seed, last, [2 * best, best, 1.5 * best])
        for value, training, validation in found
        for seed, (last, best) in enumerate(zip(training, validation))
    ]
    return summary(effects(rows))


def test_a_difference_larger_than_that_of_the_seeds_is_reported():
    text = said("seq-len", ("17", [50, 51], [99, 101]), ("35", [60, 61], [120, 122]), ("70", [40, 41], [199, 201]))
    assert text == ("--seq-len: 17 has the best validation perplexity, 100.0 after epoch 2; 70 has the worst, 200.0.")


def test_a_difference_within_that_of_the_seeds_is_not_significant():
    text = said("hidden-size", ("64", [50, 51], [90, 110]), ("256", [50, 51], [95, 115]))
    assert text == "--hidden-size: no significant difference in best validation perplexity (99.5 to 104.5)."


def test_values_without_a_significant_difference_are_best_together():
    text = said("seq-len", ("17", [50, 51], [99, 99.1]), ("35", [60, 61], [95, 104]), ("70", [40, 41], [199, 201]))
    assert text.startswith("--seq-len: 17 and 35 do not differ significantly and have the best validation perplexity, ")
    assert text.endswith("; 70 has the worst, 200.0.")
    assert "no significant difference" in said("seq-len", ("17", [50], [99]), ("35", [50], [99]))


def test_single_trials_count_as_different():
    assert said("seq-len", ("17", [50], [99]), ("35", [50], [100])) == (
        "--seq-len: 17 has the best validation perplexity, 99.0 after epoch 2; 35 has the worst, 100.0; each value was "
        "run once."
    )


def test_texts_of_different_lengths_are_not_compared():
    text = said("max-chars", ("5000", [50, 51], [99, 101]), ("20000", [60, 61], [30, 31]))
    assert "from 5000 to 20000 characters, the training perplexity changes from 50.5 to 60.5; " in text
    assert text.endswith("so validation perplexities are not compared.")
    assert "from 5000 to all characters" in said("max-chars", ("5000", [50], [99]), ("0", [60], [30]))


@pytest.mark.parametrize(
    ("carried", "words"), [([80, 81], "makes the training perplexity 61 % higher: 80.5 against 50.0"),
                           ([49, 52], "makes no significant difference in training perplexity: 50.5 against 50.0")],
)  # fmt: skip
def test_the_effect_of_carried_state_with_random_sampling_is_reported(carried: List[float], words: str):
    assert words in said("batches", ("random/window", [49, 51], [99, 101]), ("random/epoch", carried, [150, 151]))


def test_a_folder_continues_with_the_same_settings_only(tmp_path: Path):
    file = tmp_path / "out" / "setup.json"
    create_or_continue(file, {"a": 1, "b": (2, 3)}, "trials")
    create_or_continue(file, {"a": 1, "b": (2, 3)}, "trials")
    with pytest.raises(UserError, match=r"^--out .*/out: holds trials whose a was 1 and is 2: give another folder$"):
        create_or_continue(file, {"a": 2, "b": (2, 3)}, "trials")
    with pytest.raises(UserError, match="whose c was None and is 4"):
        create_or_continue(file, {"a": 1, "b": (2, 3), "c": 4}, "trials")
    create_or_continue(file, {"a": 1, "b": (2, 3), "c": 4}, "trials", {"c": 4})
    assert json.loads(file.read_bytes()) == {"a": 1, "b": [2, 3]}
    for text in ("[]", "{", "3"):
        file.write_text(text)
        with pytest.raises(UserError, match="its setup.json cannot be read: give another folder"):
            create_or_continue(file, {"a": 1}, "trials")
    file.unlink()
    file.mkdir()
    with pytest.raises(UserError, match="its setup.json cannot be read: give another folder"):
        create_or_continue(file, {"a": 1}, "trials")


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path):
    (tmp_path / "precious").touch()
    with pytest.raises(UserError, match="holds other files: give a new folder") as caught:
        create_or_continue(tmp_path / "setup.json", {}, "trials")
    assert caught.value.status == ExitStatus.CANNOT_CREATE
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]
    with pytest.raises(UserError, match=r"cannot be written \(Not a directory\)"):
        create_or_continue(tmp_path / "precious" / "setup.json", {}, "trials")
