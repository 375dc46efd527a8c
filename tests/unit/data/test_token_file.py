"""Reading of tokens from a file by position, and refusal of files that are damaged or cannot be read."""

from pathlib import Path

import numpy as np
import pytest

from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches
from lstm_dist.data.token_file import TOKENS, TokenFile, npy_header, read_sequences, token_type
from lstm_dist.errors import UserError

HELD = np.random.default_rng(5).integers(0, 300, 1000)


def file_of(folder: Path, vocab_size: int = 300) -> TokenFile:
    dtype = token_type(vocab_size)
    (folder / TOKENS).write_bytes(npy_header(dtype, len(HELD)) + HELD.astype(dtype).tobytes())
    return TokenFile.open(folder, vocab_size, len(HELD))


@pytest.mark.parametrize("vocab_size", [300, 70_000])
def test_slices_of_a_file_equal_those_of_an_array(tmp_path: Path, vocab_size: int):
    file = file_of(tmp_path, vocab_size)
    for part in (
        slice(0, 10),
        slice(990, None),
        slice(7, 7),
        slice(None),
        slice(5, 2000),
        slice(9, 3),
        slice(-4, None),
    ):
        assert len(file[part]) == len(HELD[part])
        np.testing.assert_array_equal(np.asarray(file[part]), HELD[part])
    for start, length in ((8, 5), (-1, 2), (0, 11)):
        with pytest.raises(IndexError):
            read_sequences(file[:10], np.array([0, start]), length)
    with pytest.raises(IndexError):
        file[::2]
    starts = np.array([700, 0, 3, 991])
    np.testing.assert_array_equal(read_sequences(file, starts, 9), [HELD[start : start + 9] for start in starts])
    np.testing.assert_array_equal(
        read_sequences(file[5:], starts - 5 * (starts > 5), 4), read_sequences(HELD[5:], starts - 5 * (starts > 5), 4)
    )


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
def test_windows_of_a_file_equal_those_of_an_array(tmp_path: Path, kind: type):
    tokens = HELD[:777], file_of(tmp_path)[:777]
    here, there = (kind(each, 5, 7, 1, 2, vocab_size=300) for each in tokens)
    windows = list(zip(here.epoch(1), there.epoch(1)))
    assert len(windows) == here.steps_per_epoch == there.steps_per_epoch
    for mine, its in windows:
        np.testing.assert_array_equal(mine.inputs, its.inputs)
        np.testing.assert_array_equal(mine.targets, its.targets)
        np.testing.assert_array_equal(mine.characters, its.characters)


def test_token_outside_the_vocabulary_is_refused_when_it_is_read(tmp_path: Path):
    file = file_of(tmp_path)
    with (tmp_path / TOKENS).open("r+b") as other:
        other.seek(-2, 2)
        other.write(np.array([300], "<u2").tobytes())
    assert len(np.asarray(file[:999])) == 999
    with pytest.raises(
        UserError, match=f"^--corpus {tmp_path}: is damaged, {TOKENS} contains tokens outside the vocabulary: "
    ):
        file.read_sequences(np.array([0, 995]), 5)


def test_truncated_file_is_refused_without_a_bus_error(tmp_path: Path):
    file = file_of(tmp_path)
    with (tmp_path / TOKENS).open("r+b") as other:
        other.truncate(1500)
    assert len(np.asarray(file[:500])) == 500
    with pytest.raises(UserError, match="has become shorter"):
        np.asarray(file)


def test_read_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(*_: object) -> int:
        raise OSError(5, "Input/output error")

    file = file_of(tmp_path)
    monkeypatch.setattr("os.preadv", refuse)
    with pytest.raises(UserError, match=rf"{TOKENS} cannot be read \(Input/output error\)"):
        np.asarray(file)
