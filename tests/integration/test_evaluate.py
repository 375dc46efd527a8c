"""jobs/evaluate.py gives the same perplexity with any number of workers and streams; validation during training."""

import json
import re
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

import numpy as np
import pytest
from safetensors.numpy import save_file

from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model.parameters import layers_of, parameter_shapes
from lstm_dist.programs import sample
from lstm_dist.programs.evaluate import main
from lstm_dist.run.checkpoint import load_checkpoint
from tests.support import reference
from tests.support.launchers import ENVIRONMENT, LAUNCHERS
from tests.support.programs import ROOT, SAMPLE, TINY, TRAIN, newest, run
from tests.support.refusals import refusal, train_main

EVALUATE = ("python", str(ROOT / "jobs" / "evaluate.py"))
PREPARE = ("python", str(ROOT / "jobs" / "prepare.py"))
TEXT = "我们走在路上，你们看着我们。\n他们唱歌，我们走。\n" * 30


def evaluate(*words: Any, launcher: "List[str]" = [], **how: Any) -> Any:  # noqa: B006 - never modified
    return run([*launcher, *EVALUATE, *map(str, words)], env=ENVIRONMENT, **how)


def numbers(stdout: str) -> List[str]:
    match = re.search(r"^perplexity (\S+) \| (\S+) bits/char \| ([\d,]+) characters of (\S+)$", stdout, re.MULTILINE)
    assert match, stdout
    return list(match.groups())


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train on TEXT, stored as text.txt next to the run, and return the run directory."""
    folder = tmp_path_factory.mktemp("model")
    (folder / "text.txt").write_text(TEXT, encoding="utf-8")
    words = [f"--corpus={folder}/text.txt", f"--run-dir={folder}/run", "--learning-rate=0.5", "--epochs=5"]
    done = run([*TRAIN, *TINY, *words], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    return folder / "run"


def expected(run_dir: Path, text: str) -> float:
    """Return the perplexity that the float64 reference computes in a single window."""
    checkpoint = load_checkpoint(newest(run_dir), "test")
    assert checkpoint.vocabulary is not None
    return float(np.exp(loss_of(checkpoint.parameters, text, checkpoint.vocabulary)))


def loss_of(parameters: Dict[str, np.ndarray], text: str, vocabulary: Optional[Vocabulary] = None) -> float:
    """Return the loss in nats per character; the default vocabulary is the characters of the text."""
    tokens = (vocabulary or Vocabulary(text)).encode(text)
    parameters = {name: value.astype(np.float64) for name, value in parameters.items()}
    zeros = np.zeros((1, layers_of(parameters) * parameters["W_hi"].shape[0]))
    loss, _, _ = reference.window_loss(parameters, tokens[None, :-1], tokens[None, 1:], zeros, zeros)
    return float(loss / (len(tokens) - 1))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("launcher", "streams"),
    [
        ([], ()),
        (LAUNCHERS["horovodrun-gloo"](2), ("--streams=50", "--seq-len=7")),
        (LAUNCHERS["mpirun"](3), ("--streams=3",)),
    ],
    ids=["alone", "gloo", "mpirun"],
)
def test_perplexity_is_independent_of_workers_and_streams(model: Path, launcher: List[str], streams: Sequence[str]):
    """tests/parallel/test_scoring.py covers every number of workers with every number of streams."""
    corpus, text = model.parent / "text.txt", TEXT.replace("\n", " ")
    done = evaluate(model, f"--corpus={corpus}", *streams, launcher=launcher)
    assert done.returncode == 0, done.stderr
    # horovodrun prefixes every line.
    perplexity, bits, chars, source = numbers(re.sub(r"^\[.*?\]<stdout>:", "", done.stdout, flags=re.MULTILINE))
    assert float(perplexity) == pytest.approx(expected(model, text), rel=6e-6)
    assert float(bits) == pytest.approx(np.log2(expected(model, text)), rel=6e-6)
    assert (chars, source) == (f"{len(text) - 1:,}", "text.txt")


@pytest.mark.slow
def test_unknown_characters_are_counted_and_left_out(model: Path, tmp_path: Path):
    (tmp_path / "other.txt").write_text("我们走火车，火车走我们。" * 20, encoding="utf-8")
    done = evaluate(model, f"--corpus={tmp_path}/other.txt", "--streams=2")
    assert done.returncode == 0, done.stderr
    assert "80 characters (2 distinct: 火车) are not in the model's vocabulary: left out\n" in done.stdout
    assert float(numbers(done.stdout)[0]) == pytest.approx(expected(model, "我们走，走我们。" * 20), rel=6e-6)


@pytest.mark.slow
def test_deeper_model_is_evaluated_and_sampled(model: Path, tmp_path: Path):
    corpus = model.parent / "text.txt"
    words = [f"--corpus={corpus}", f"--run-dir={tmp_path}/run", "--layers=2", "--learning-rate=0.5"]
    # Weights far from zero, so that every layer affects the result.
    shapes, rng = parameter_shapes(len(set(TEXT.replace("\n", " "))), 8, layers=2), np.random.default_rng(3)
    weights = {name: rng.normal(0, 0.7, shape).astype(np.float32) for name, shape in shapes.items()}
    save_file(weights, str(tmp_path / "begin.safetensors"))
    done = run([*TRAIN, *TINY, *words, f"--init={tmp_path}/begin.safetensors"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    done = evaluate(tmp_path / "run", f"--corpus={corpus}")
    assert done.returncode == 0, done.stderr
    text = TEXT.replace("\n", " ")
    assert float(numbers(done.stdout)[0]) == pytest.approx(expected(tmp_path / "run", text), rel=6e-6)
    for zeroed in ("W_x", "W_h"):  # otherwise the perplexity would not depend on the second layer
        trained = load_checkpoint(newest(tmp_path / "run"), "test").parameters
        without = {k: v * (not (k.startswith(zeroed) and k.endswith("_2"))) for k, v in trained.items()}
        assert loss_of(without, text) != pytest.approx(loss_of(trained, text), rel=1e-3)
    done = run([*SAMPLE, f"{tmp_path}/run", "--prefix=我们", "--length=9"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("我们")
    done = run([*TRAIN, *TINY, *words[:1], f"--init={newest(tmp_path / 'run')}"], env=ENVIRONMENT, cwd=tmp_path)
    assert done.returncode == 78
    assert done.stderr.endswith("give weights of the same vocabulary, --hidden-size and --layers\n")


@pytest.mark.slow
def test_lines_of_several_files_are_learnt_evaluated_and_sampled(tmp_path: Path, capsys: pytest.CaptureFixture):
    names = {"b.txt": "ruth\r\nnaomi\r\n" * 40, "a.txt": "boas\nobed\n" * 40}
    (tmp_path / "names").mkdir()
    for name, text in names.items():
        (tmp_path / "names" / name).write_bytes(text.encode("utf-16"))
    words = [f"--corpus={tmp_path}/names", f"--corpus={tmp_path}/names/a.txt", "--keep-newlines"]
    done = run([*TRAIN, *TINY, "--max-chars=0", *words, f"--run-dir={tmp_path}/run"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert "corpus: all 1,240 characters of a.txt and 2 more, " in done.stdout
    text = names["a.txt"] + names["b.txt"].replace("\r\n", "\n") + names["a.txt"]
    done = evaluate(tmp_path / "run", *words[:2])
    assert done.returncode == 0, done.stderr
    assert float(re.findall(r"perplexity (\S+)", done.stdout)[0]) == pytest.approx(
        expected(tmp_path / "run", text), rel=6e-6
    )
    sample.main([f"{tmp_path}/run", "--prefix=obed\n", "--length=9"])
    assert capsys.readouterr().out.startswith("obed\n")
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (config["corpus"], config["keep_newlines"]) == ([f"{tmp_path}/names", f"{tmp_path}/names/a.txt"], True)
    again = ["--resume", f"--run-dir={tmp_path}/run", "--epochs=3"]
    done = run([*TRAIN, *again], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_unknown_characters_are_encoded_as_the_unknown_character(model: Path, tmp_path: Path):
    corpus = model.parent / "text.txt"
    done = run([*PREPARE, str(corpus), f"--out={tmp_path}/few", "--max-vocab=6"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    done = run([*TRAIN, *TINY, f"--corpus={tmp_path}/few", f"--run-dir={tmp_path}/run"], env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    vocabulary = load_checkpoint(newest(tmp_path / "run"), "test").vocabulary
    assert isinstance(vocabulary, Vocabulary)
    assert vocabulary.unknown is not None
    text = TEXT.replace("\n", " ")
    as_read = "".join(c if c in vocabulary.characters else "\ufffd" for c in text)
    said = {}
    for name, source in (("text", corpus), ("prepared", tmp_path / "few")):
        done = evaluate(tmp_path / "run", f"--corpus={source}")
        assert done.returncode == 0, done.stderr
        assert ("not in the model's vocabulary: encoded as its unknown character" in done.stdout) == (name == "text")
        said[name] = float(numbers(done.stdout)[0])
    assert said["text"] == said["prepared"] == pytest.approx(expected(tmp_path / "run", as_read), rel=6e-6)


@pytest.mark.slow
def test_validation_set_is_evaluated_and_best_weights_are_kept(model: Path, tmp_path: Path):
    corpus = model.parent / "text.txt"
    words = [f"--corpus={corpus}", "--valid-fraction=0.25", "--epochs=6", "--eval-every=2", "--max-chars=0"]
    for name, launcher in (("alone", []), ("three", LAUNCHERS["mpirun"](3))):
        done = run([*launcher, *TRAIN, *TINY, *words, f"--run-dir={tmp_path}/{name}"], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    ours, theirs = ([row_of(line) for line in lines(tmp_path / name)] for name in ("alone", "three"))
    text = TEXT.replace("\n", " ")
    kept = len(text) - int(0.25 * len(text))
    steps = json.loads((tmp_path / "alone" / "status.json").read_text())["step"]
    assert steps == 6 * ((kept // 4 - 1) // 5), "the validation set is not trained on"
    assert [epoch for epoch, valid in ours if valid is not None] == [2, 4, 6]
    np.testing.assert_allclose([v for _, v in ours if v], [v for _, v in theirs if v], rtol=1e-5)
    assert "| validation " in (tmp_path / "alone" / "log.txt").read_text()
    best = load_checkpoint(tmp_path / "alone" / "checkpoints" / "best.safetensors", "test")
    least = min((valid, epoch) for epoch, valid in ours if valid is not None)
    assert (best.facts["valid"]["perplexity"], best.facts["valid"]["epoch"]) == (pytest.approx(least[0]), least[1])
    (tmp_path / "held.txt").write_text(text[kept:], encoding="utf-8")
    done = evaluate(tmp_path / "alone" / "checkpoints" / "best.safetensors", f"--corpus={tmp_path}/held.txt")
    assert float(numbers(done.stdout)[0]) == pytest.approx(least[0], rel=1e-5)


def lines(run_dir: Path) -> List[str]:
    return (run_dir / "metrics.jsonl").read_text().splitlines()


def row_of(line: str) -> Any:
    row = json.loads(line)
    return row["epoch"], row["valid_perplexity"]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["{run}"], 2, "the following arguments are required: --corpus"),
        (["{run}", "--corpus={0}/none.txt"], 66, "--corpus {0}/none.txt: no such file"),
        (["{0}/none", "--corpus={text}"], 66, "RUN_DIR_OR_CHECKPOINT {0}/none: no such file"),
        (["{run}", "--corpus={text}", "--streams=0"], 2, "--streams 0: should be greater than or equal to 1"),
        (
            ["{run}", "--corpus={text}", "--stall-timeout=0"],
            2,
            "--stall-timeout 0: should be greater than or equal to 1",
        ),
        (["{run}", "--corpus={text}", "--stall-timeout=nan"], 2, "--stall-timeout nan: should be a finite number"),
        (
            ["{run}", "--corpus={text}", "--max-chars=9", "--streams=9"],
            65,
            "--corpus {text}: 9 characters are too few for",
        ),
        (
            ["{run}", "--corpus={0}/cyrillic.txt"],
            65,
            "--corpus {0}/cyrillic.txt: 40 characters (1 distinct: Ж) are not in the model's vocabulary",
        ),
        (["{run}", "--corpus={0}/empty"], 66, "--corpus {0}/empty: the folder has no file in it: give a text"),
        (["{run}", "--corpus="], 2, "--corpus '': should not be empty"),
        (["{run}", "--corpus={text}", "--encoding=hex"], 2, "--encoding hex: should be an encoding of text"),
    ],
)
def test_invalid_input_is_reported_in_one_line(
    model: Path, tmp_path: Path, words: List[str], status: int, message: str, capsys: pytest.CaptureFixture
):
    names = {"run": model, "text": model.parent / "text.txt"}
    (tmp_path / "cyrillic.txt").write_text("Ж" * 40, encoding="utf-8")
    (tmp_path / "empty").mkdir()
    refused = refusal(main, [word.format(tmp_path, **names) for word in words], capsys)
    assert refused.status == status
    assert refused.message.startswith(message.format(tmp_path, **names))


@pytest.mark.slow
def test_program_refuses_a_missing_flag(model: Path):
    done = evaluate(model)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: the following arguments are required: --corpus\n"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--valid-fraction=1"], "--valid-fraction 1: should be less than 1"),
        (["--valid-fraction=0.001"], "--valid-fraction 0.001: 0 characters are too few for 1 streams"),
        (["--decay-factor=2"], "--decay-factor 2: should be less than or equal to 1"),
        (["--learning-rate-schedule=fast"], "--learning-rate-schedule fast: should be 'constant', 'step' or 'cosine'"),
    ],
)
def test_invalid_training_setting_is_reported_in_one_line(
    tmp_path: Path, words: List[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    refused = refusal(train_main, [*TINY, *words], capsys)
    assert refused.status in (2, 65)
    assert refused.message.startswith(message)
    assert not list(tmp_path.iterdir())
