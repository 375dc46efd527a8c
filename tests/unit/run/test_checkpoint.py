"""The checkpoint format: contents survive a round trip, and invalid files are refused in one line."""

import json
import struct
from pathlib import Path
from typing import Dict

import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.model.parameters import parameter_shapes
from lstm_dist.run import checkpoint
from lstm_dist.run.checkpoint import STATE, load_checkpoint, pack, unpack

VOCABULARY = Vocabulary(' 分开不\0\x1b"\\')
V, H = len(VOCABULARY), 3


def parameters(seed: int = 0) -> Dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    return {k: random.standard_normal(s).astype(np.float32) for k, s in parameter_shapes(V, H).items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Write a valid checkpoint and return its path."""
    path = tmp_path / "a.safetensors"
    path.write_bytes(pack(parameters(), VOCABULARY, state(), config={"epochs": 2, "corpus": "歌\udcff.txt"}))
    return path


def state() -> Dict[str, np.ndarray]:
    return {name: np.full((2, H), k, np.float32) for k, name in enumerate(STATE)}


def refusal(path: Path) -> str:
    with pytest.raises(UserError) as caught:
        load_checkpoint(path, "--init")
    assert str(caught.value).startswith(f"--init {path}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_contents_survive_a_round_trip(path: Path):
    loaded = load_checkpoint(path, "--init")
    assert loaded.vocabulary == VOCABULARY
    assert set(loaded.parameters) == set(parameter_shapes(V, H))
    for name, value in parameters().items():
        assert loaded.parameters[name].dtype == np.float32
        assert loaded.parameters[name].tobytes() == value.tobytes(), name
    assert {name: value.tolist() for name, value in loaded.state.items()} == {k: v.tolist() for k, v in state().items()}
    assert loaded.facts == {"config": {"epochs": 2, "corpus": "歌\udcff.txt"}}


def test_safetensors_reads_the_metadata(path: Path):
    with safe_open(str(path), framework="numpy") as file:
        metadata = file.metadata()
    assert metadata["vocabulary"] == VOCABULARY.characters
    assert json.loads(metadata["config"]) == {"epochs": 2, "corpus": "歌\udcff.txt"}


def test_safetensors_reads_the_arrays_with_numpy(path: Path):
    assert set(load_file(str(path))) == {*parameter_shapes(V, H), *STATE}


def test_truncated_or_extended_file_is_refused(path: Path):
    data = path.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        assert "is not an intact .safetensors file (" in refusal(path)
    path.write_bytes(data + b"\0")
    assert "is not an intact .safetensors file (" in refusal(path)


def test_flipped_bit_in_any_byte_is_refused(path: Path):
    data = path.read_bytes()
    unpack(data, "x")
    for k in range(len(data)):
        with pytest.raises(UserError, match="is not an intact"):
            unpack(data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1 :], "x")


def test_file_without_hash_yields_only_its_weights(path: Path):
    path.write_bytes(save(parameters(), {"vocabulary": VOCABULARY.characters, "progress": "{"}))
    assert load_checkpoint(path, "--init").facts == {}
    with pytest.raises(UserError, match="it has no hash"):
        unpack(path.read_bytes(), "x")


def test_newer_format_version_is_reported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(checkpoint, "FORMAT", 2)
    data = pack(parameters(), VOCABULARY)
    monkeypatch.undo()
    with pytest.raises(UserError, match="has format 2, this program reads 1"):
        unpack(data, "x")


def test_hash_pattern_in_the_config_is_not_taken_for_the_hash():
    zeros = '"sha256":"' + "0" * 64 + '"'
    assert unpack(pack(parameters(), VOCABULARY, config={"prefix": zeros}), "x").facts["config"]["prefix"] == zeros


def test_unsorted_vocabulary_is_refused(path: Path):
    """An unsorted vocabulary is refused, because it would number the characters differently."""
    path.write_bytes(save(parameters(), {"vocabulary": VOCABULARY.characters[::-1]}))
    assert "the vocabulary in it is not sorted" in refusal(path)


def test_file_of_another_program_may_lack_a_vocabulary(path: Path):
    for metadata in (None, {"format": "np"}):
        path.write_bytes(save(parameters(), metadata))
        assert load_checkpoint(path, "--init").vocabulary is None


def test_invalid_checkpoint_is_reported_in_one_line(tmp_path: Path):
    path = tmp_path / "a.safetensors"
    assert refusal(path).endswith("no such file")
    assert refusal(tmp_path).endswith("is a folder: name one of its .safetensors files")
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
        assert "is not an intact .safetensors file (" in refusal(path)
