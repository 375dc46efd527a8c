"""jobs/sample.py writes exactly the requested number of characters, and needs nothing but a checkpoint."""

import json
import shutil
from pathlib import Path
from typing import List

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.model.parameters import initial_parameters
from lstm_dist.programs import sample
from lstm_dist.run.checkpoint import pack
from lstm_dist.run.pretrained import D2L_PREFIXES
from tests.support.programs import SAMPLE, newest, run
from tests.support.trained import Trained

pytestmark = pytest.mark.slow


def written(capsys: pytest.CaptureFixture, *argv: object) -> str:
    """Run the program inside this process, and return what it prints."""
    sample.main([str(word) for word in argv])
    printed = capsys.readouterr().out
    assert printed.endswith("\n")
    return printed[:-1]


def test_greedy_text_equals_the_samples_of_training(trained: Trained, capsys: pytest.CaptureFixture):
    lines = (trained.run_dir / "samples.jsonl").read_bytes().splitlines()
    last = [record for record in map(json.loads, lines) if record["epoch"] == 3]
    assert len(last) == 3
    for record in last:
        assert written(capsys, trained.run_dir, "--prefix", record["prefix"], "--length", 30) == record["text"]


def test_real_program_needs_only_the_checkpoint(trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture):
    alone = tmp_path / "weights.safetensors"
    shutil.copy(newest(trained.run_dir), alone)
    env = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    result = run([*SAMPLE, str(alone)], cwd=tmp_path, env=env)
    assert (result.returncode, result.stderr) == (0, "")
    texts = [written(capsys, trained.run_dir, f"--prefix={prefix}", "--length=100") for prefix in D2L_PREFIXES]
    assert result.stdout.splitlines() == texts
    assert [len(text) for text in texts] == [len(prefix) + 100 for prefix in D2L_PREFIXES]
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


@pytest.mark.parametrize("flags", [(), ("--temperature=0.8", "--top-k=40", "--seed=1"), ("--temperature=1",)])
@pytest.mark.parametrize("length", [1, 2, 57])
def test_text_has_exactly_the_requested_length(
    trained: Trained, capsys: pytest.CaptureFixture, length: int, flags: List[str]
):
    text = written(capsys, trained.run_dir, "--prefix=不分开", f"--length={length}", *flags)
    assert text.startswith("不分开")
    assert len(text) == 3 + length


def test_draws_are_reproducible_with_the_same_seed(trained: Trained, capsys: pytest.CaptureFixture):
    def drawn(*flags: str) -> str:
        return written(capsys, trained.run_dir, "--prefix=分开", "--temperature=0.8", *flags)

    assert drawn("--seed=1", "--top-k=40") == drawn("--seed=1", "--top-k=40")
    assert drawn("--seed=1") != drawn("--seed=2")
    assert drawn("--seed=1") != drawn("--seed=1", "--top-k=3")
    assert drawn() == drawn("--seed=0")
    assert drawn("--top-k=1") == written(capsys, trained.run_dir, "--prefix=分开")


def test_text_begins_with_the_prefixes_of_the_run(tmp_path: Path, capsys: pytest.CaptureFixture):
    vocabulary = Vocabulary("אביגיל רות")
    parameters = initial_parameters(len(vocabulary), 3, 0)
    cases = {"own": ({"prefix": ["רות", "אבי"]}, ["רות", "אבי"]), "none": ({}, ["א"]), "old": ({"prefix": None}, ["א"])}
    for name, (config, prefixes) in cases.items():
        path = tmp_path / f"{name}.safetensors"
        path.write_bytes(pack(parameters, vocabulary, config=config))
        lines = written(capsys, path, "--length=5").split("\n")
        assert [(line[:-5], len(line)) for line in lines] == [(prefix, len(prefix) + 5) for prefix in prefixes], name
    with pytest.raises(UserError, match="^--prefix 分开: the model's vocabulary lacks '分开'"):
        sample.main([str(path), "--prefix=分开"])


def test_control_characters_are_escaped_on_a_terminal_only(
    trained: Trained, tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    path = tmp_path / "a.safetensors"
    weights = load_file(str(newest(trained.run_dir)))
    size = len(weights["b_y"])
    weights["b_y"] = np.where(np.arange(size) == 27, 1e3, 0).astype(np.float32)  # always draws the escape character
    save_file(weights, str(path), {"vocabulary": "".join(map(chr, range(size)))})
    assert written(capsys, path, "--prefix=a", "--length=3") == "a\x1b\x1b\x1b"
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    assert written(capsys, path, "--prefix=a", "--length=3") == "a\\x1b\\x1b\\x1b"


BAD = [
    (("--prefix=分開",), "--prefix 分開: the model's vocabulary lacks '開'; use characters it was trained on"),
    (("--prefix=a分b",), "--prefix a分b: the model's vocabulary lacks 'ab'; use characters it was trained on"),
    (("--prefix=",), "--prefix '': should have at least one character"),
    (("--length=0",), "--length 0: should be greater than or equal to 1"),
    (("--length=-3",), "--length -3: should be greater than or equal to 1"),
    (("--length=many",), "--length many: should be a valid integer"),
    (("--temperature=-1",), "--temperature -1: should be greater than or equal to 0"),
    (("--temperature=nan",), "--temperature nan: should be a finite number"),
    (("--temperature=inf",), "--temperature inf: should be a finite number"),
    (("--top-k=0",), "--top-k 0: should be greater than or equal to 1"),
    (("--top-k=5",), "--top-k 5: has no effect at temperature 0; give --temperature 0.8, or omit it"),
    (("--seed=5",), "--seed 5: has no effect at temperature 0"),
    (("--seed=-1",), "--seed -1: should be greater than or equal to 0"),
    (("--temprature=1",), "--temprature: no such flag, did you mean --temperature?; --help lists them all"),
    (("--temp=1",), "--temp: no such flag"),
    (("--len=1",), "--len: no such flag, did you mean --length?"),
    (("more",), "more: no such flag"),
]


@pytest.mark.parametrize(("flags", "expected"), BAD, ids=[flags[0] for flags, _ in BAD])
def test_invalid_flag_is_reported_by_name(
    trained: Trained, capsys: pytest.CaptureFixture, flags: List[str], expected: str
):
    with pytest.raises(UserError) as caught:
        sample.main([str(trained.run_dir), *flags])
    assert str(caught.value).startswith(expected)
    assert "\n" not in str(caught.value)
    assert capsys.readouterr().out == ""


def test_invalid_checkpoint_is_reported_in_one_line(trained: Trained, tmp_path: Path):
    weights = load_file(str(newest(trained.run_dir)))
    vocabulary = {"vocabulary": "".join(map(chr, range(len(weights["b_y"]))))}
    path = tmp_path / "a.safetensors"

    def refusal(source: object = path) -> str:
        with pytest.raises(UserError) as caught:
            sample.main([str(source), "--prefix=a"])
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "no such file" in refusal()
    assert refusal("a" * 3000) == "RUN_DIR_OR_CHECKPOINT: should have names of at most 255 bytes, one has 3,000"
    assert refusal("") == "RUN_DIR_OR_CHECKPOINT: should not be empty"
    assert refusal(tmp_path) == (
        f"RUN_DIR_OR_CHECKPOINT {tmp_path}: has no checkpoint; give a run of jobs/train.py, or a file"
    )
    path.write_bytes(b"PK\3\4 no safetensors")
    assert "is not an intact .safetensors file" in refusal()
    save_file(weights, str(path))
    assert "holds no vocabulary; give a file that jobs/train.py wrote" in refusal()
    save_file(weights, str(path), {"vocabulary": "abc"})
    assert "parameter W_xi has shape" in refusal()
    for odd in (np.zeros(()), np.zeros(8), np.zeros((8, 9)), np.zeros((0, 0))):
        save_file({**weights, "W_hi": odd.astype(np.float32)}, str(path), vocabulary)
        assert "parameter W_hi has shape" in refusal()
    for missing, said in (("W_hi", "has shape ()"), ("b_y", "is missing")):
        save_file({name: value for name, value in weights.items() if name != missing}, str(path), vocabulary)
        assert f"parameter {missing} {said}" in refusal()
    save_file({**weights, "W_extra": weights["b_y"]}, str(path), vocabulary)
    assert "parameter W_extra has shape" in refusal()


def test_real_program_ends_with_one_line_and_status_2(trained: Trained):
    result = run([*SAMPLE, str(trained.run_dir), "--prefix", "雨☃"])
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: --prefix 雨☃: the model's vocabulary lacks '☃'; use characters it was trained on\n"
    result = run(SAMPLE)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: the following arguments are required: RUN_DIR_OR_CHECKPOINT\n"
