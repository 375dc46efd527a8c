"""A checkpoint is whole or absent, and a damaged one gets one line."""

import json
import os
import struct
from pathlib import Path
from typing import Dict

import mxnet as mx
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save

from lstm_dist import checkpoint
from lstm_dist.checkpoint import load_checkpoint, save_checkpoint
from lstm_dist.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.model import CharLSTM, document_shapes

VOCABULARY = Vocabulary(' 分开不\0\x1b"\\')
V, H = len(VOCABULARY), 3


def parameters(seed: int = 0) -> Dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {k: random.standard_normal(s).astype(np.float32) for k, s in document_shapes(V, H).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Of a checkpoint that is there already."""
    path = tmp_path / "checkpoints" / "final.safetensors"
    save_checkpoint(path, parameters(), VOCABULARY, config={"epochs": 2, "corpus": "歌\udcff.txt"})
    return path


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, "--init")
    assert str(caught.value).startswith(f"--init {path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_read_is_what_was_written(path: Path):
    loaded = load_checkpoint(path, "--init")
    assert loaded.vocabulary == VOCABULARY
    assert set(loaded.parameters) == set(document_shapes(V, H))
    for name, value in parameters().items():
        assert loaded.parameters[name].dtype == np.float32
        assert loaded.parameters[name].tobytes() == value.tobytes(), name
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_other_programs_can_read_it(path: Path):
    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["vocabulary"] == VOCABULARY.characters
    assert json.loads(metadata["config"]) == {"epochs": 2, "corpus": "歌\udcff.txt"}


def test_a_second_checkpoint_replaces_the_first(path: Path):
    save_checkpoint(path, parameters(seed=1), VOCABULARY)
    np.testing.assert_array_equal(load_checkpoint(path, "--init").parameters["W_hi"], parameters(seed=1)["W_hi"])


@pytest.mark.parametrize("moment", ["save", "fsync", "replace"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()], ids=["full", "Ctrl-C"])
def test_a_crash_while_writing_leaves_the_old_file(
    path: Path, monkeypatch: pytest.MonkeyPatch, moment: str, error: BaseException
):
    old = path.read_bytes()

    def crash(*_: object) -> None:
        raise error

    target = {"save": (checkpoint, "save"), "fsync": (os, "fsync"), "replace": (Path, "replace")}[moment]
    with monkeypatch.context() as patch:
        patch.setattr(*target, crash)
        with pytest.raises(type(error)):
            save_checkpoint(path, parameters(seed=1), VOCABULARY)
        with pytest.raises(type(error)):
            save_checkpoint(path.with_name("new.safetensors"), parameters(seed=1), VOCABULARY)
    assert path.read_bytes() == old
    assert not path.with_name("new.safetensors").exists()
    save_checkpoint(path, parameters(seed=1), VOCABULARY)  # what the crash left is in nobody's way
    np.testing.assert_array_equal(load_checkpoint(path, "--init").parameters["b_y"], parameters(seed=1)["b_y"])


def test_the_bytes_are_on_the_disk_before_the_name_is(path: Path, monkeypatch: pytest.MonkeyPatch):
    events = []
    monkeypatch.setattr(os, "fsync", lambda number: events.append(("fsync", os.fstat(number).st_size)))
    monkeypatch.setattr(Path, "replace", lambda self, to: events.append(("replace", self.stat().st_size, to)))
    size = path.stat().st_size
    save_checkpoint(path, parameters(), VOCABULARY, config={"epochs": 2, "corpus": "歌\udcff.txt"})
    assert events == [("fsync", size), ("replace", size, path)]


def test_every_truncation_is_refused(path: Path):
    data = path.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        assert "is not a whole .safetensors file (" in refusal(path)
    path.write_bytes(data + b"\0")
    assert "is not a whole .safetensors file (" in refusal(path)


def test_a_flipped_bit_in_the_header_never_changes_a_weight(path: Path):
    data = path.read_bytes()
    header = 8 + struct.unpack("<Q", data[:8])[0]
    model, good = CharLSTM(V, H, mx.cpu()), parameters()
    refused = []
    for k in range(header):
        path.write_bytes(data[:k] + bytes([data[k] ^ 1 << k % 7]) + data[k + 1 :])
        try:
            loaded = load_checkpoint(path, "--init")
            model.load(loaded.parameters, "--init")
        except UserError as error:
            refused.append(str(error))
        else:
            assert {name: value.tobytes() for name, value in loaded.parameters.items()} == {
                name: value.tobytes() for name, value in good.items()
            }
    assert len(refused) > 0.8 * header
    assert not any("\n" in message for message in refused)


def test_a_vocabulary_that_is_out_of_order_would_number_the_characters_differently(path: Path):
    path.write_bytes(save(parameters(), {"vocabulary": VOCABULARY.characters[::-1]}))
    assert "the vocabulary in it is not sorted" in refusal(path)


def test_a_file_of_another_program_may_have_no_vocabulary(path: Path):
    for metadata in (None, {"format": "np"}):
        path.write_bytes(save(parameters(), metadata))
        assert load_checkpoint(path, "--init").vocabulary is None


def test_what_is_no_checkpoint_gets_one_line(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    assert refusal(path).endswith("no such file")
    assert refusal(tmp_path).endswith("no such file")
    assert refusal(tmp_path / ("a" * 3000)).endswith("no such file")
    bfloat16 = b'{"b_y":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    enormous = b'{"b_y":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,18446744073709551612]}}'
    for content in (
        b"",
        b"\x80\x04\x95pickle",
        "分开".encode() * 100,
        b"\xff" * 8 + b"{}",
        struct.pack("<Q", len(bfloat16)) + bfloat16 + bytes(4),
        struct.pack("<Q", len(enormous)) + enormous + bytes(4),
    ):
        path.write_bytes(content)
        assert "is not a whole .safetensors file (" in refusal(path)
