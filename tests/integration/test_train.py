"""jobs/train.py from the command line to perplexity.png, on a model so small that imports take most of the time."""

import fcntl
import hashlib
import json
import math
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import Dict, List, Mapping, Optional, Sequence

import numpy as np
import pytest
from safetensors import safe_open

from lstm_dist.model.parameters import parameter_shapes
from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.programs import ROOT, TINY, TRAIN, environment, newest, run
from tests.support.trained import TRAINED_FLAGS, Trained
from tests.support.verses import verses

pytestmark = pytest.mark.slow

DOCUMENT_PREFIXES = ["分开", "不分开", "战争中部队"]


def train(
    tmp_path: Path, corpus: Path, *flags: str, env: Optional[Mapping[str, Optional[str]]] = None
) -> "subprocess.CompletedProcess[str]":
    """Train in `tmp_path`/run, and check that it succeeds."""
    argv = [*TRAIN, f"--corpus={corpus}", f"--run-dir={tmp_path / 'run'}", *TINY, *flags]
    tmp_path.mkdir(exist_ok=True)
    result = run(argv, cwd=tmp_path, env=env)
    assert result.returncode == 0, result.stderr
    return result


def records(path: Path) -> List[Dict]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def shown_log(run_dir: Path) -> str:
    """Return log.txt without the lines that stdout does not have."""
    return re.sub(r"^committed .*\n", "", (run_dir / "log.txt").read_text(encoding="utf-8"), flags=re.MULTILINE)


def without_times(run_dir: Path) -> Dict[str, object]:
    """Return all results that two equal runs share: everything but the measured times and the run directory."""
    metrics = [
        {k: v for k, v in m.items() if k not in ("chars_per_sec", "seconds")}
        for m in records(run_dir / "metrics.jsonl")
    ]
    config = {k: v for k, v in json.loads((run_dir / "config.json").read_bytes()).items() if k != "run_dir"}
    with safe_open(str(newest(run_dir)), framework="numpy") as file:
        vocabulary = file.metadata()["vocabulary"]
        weights = {name: file.get_tensor(name).tobytes() for name in file.keys()}  # noqa: SIM118
    samples = (run_dir / "samples.jsonl").read_bytes()
    return {"metrics": metrics, "config": config, "vocabulary": vocabulary, "weights": weights, "samples": samples}


# Files and output of a run


def test_run_directory_holds_exactly_the_expected_files(trained: Trained):
    found = sorted(str(p.relative_to(trained.run_dir)) for p in trained.run_dir.rglob("*") if p.is_file())
    assert found == [
        "checkpoints/final.safetensors", "checkpoints/step-000000000.safetensors",
        "checkpoints/step-000000087.safetensors", "config.json", "lock", "log.txt", "metrics.jsonl", "perplexity.png",
        "run.json", "samples.jsonl", "status.json", "timeline.jsonl",
    ]  # fmt: skip
    assert newest(trained.run_dir).samefile(trained.run_dir / "checkpoints/final.safetensors")


def test_resolved_configuration_is_written(trained: Trained, song_file: Path):
    assert json.loads((trained.run_dir / "config.json").read_bytes()) == {
        "corpus": str(song_file),
        "encoding": None,
        "keep_newlines": False,
        "max_chars": 600,
        "max_corpus_bytes": 2**28,
        "sampling": "consecutive",
        "state_reset": "epoch",
        "seq_len": 5,
        "global_batch_size": 4,
        "batch_size_per_worker": None,
        "hidden_size": 8,
        "layers": 1,
        "init": None,
        "epochs": 3,
        "learning_rate": 0.5,
        "learning_rate_schedule": "constant",
        "warm_up_steps": 0,
        "decay_epochs": None,
        "decay_factor": 0.1,
        "max_norm": 5.0,
        "reference_batch_size": 32,
        "wire_dtype": "float32",
        "corpus_sha256": hashlib.sha256("\n".join(verses()).replace("\n", " ")[:600].encode()).hexdigest(),
        "seed": 0,
        "device": "auto",
        "recurrence": "auto",
        "run_dir": str(trained.run_dir),
        "overwrite": False,
        "resume": False,
        "auto_resume": False,
        "dry_run": False,
        "checkpoint_every": "60s",
        "time_limit": None,
        "until_perplexity": None,
        "time_every": 0,
        "tensorboard": False,
        "stall_timeout": 300.0,
        "valid_fraction": 0.0,
        "eval_every": "1epoch",
        "log_every": "2epochs",
        "prefix": DOCUMENT_PREFIXES,
        "sample_length": 30,
    }


def test_run_json_describes_the_run_without_the_whole_environment(trained: Trained, song_file: Path):
    text = (trained.run_dir / "run.json").read_text(encoding="utf-8")
    card = json.loads(text)
    assert set(card) == {
        "started", "attempt", "step", "command", "directory", "code", "git_commit", "git_uncommitted", "python",
        "versions", "slurm", "workers", "controller", "mpi", "environment", "corpus", "ranks", "hosts", "warnings",
        "starts", "goodput",
    }  # fmt: skip
    assert card["warnings"] == []
    assert (card["workers"], card["controller"]) == (1, "none")
    assert [set(rank) for rank in card["ranks"]] == [
        {
            "host", "device", "threads", "cores", "numa_nodes", "pinning", "interfaces", "processor", "openblas", "gpu",
            "energy",
        }
    ]  # fmt: skip
    (machine,) = card["hosts"].values()
    assert set(machine) == {"kernel", "processor", "governor", "numa_nodes", "gpu_driver"}
    assert card["environment"]["OMP_NUM_THREADS"] == "1"
    (start,) = card["starts"]
    assert (start["code"], start["step"]) == (card["code"], 0)
    assert load_checkpoint(newest(trained.run_dir), "").facts["code"] == card["code"]
    assert f"--corpus={song_file}" in card["command"]
    assert card["corpus"].startswith("first 600 of 3,65")
    for name, value in os.environ.items():
        if len(value) > 12 and name not in ("PWD", "OLDPWD"):
            assert value not in text.replace(str(song_file), "").replace(str(ROOT), ""), name


def test_metrics_have_every_epoch_and_are_consistent(trained: Trained):
    metrics = records(trained.run_dir / "metrics.jsonl")
    steps = (600 // 4 - 1) // 5
    assert [m["epoch"] for m in metrics] == [1, 2, 3]
    assert [m["step"] for m in metrics] == [steps, 2 * steps, 3 * steps]
    vocabulary = load_checkpoint(newest(trained.run_dir), "").vocabulary
    assert vocabulary is not None
    for m in metrics:
        assert list(m)[:8] == "epoch step loss perplexity bits_per_char grad_norm chars_per_sec seconds".split()
        assert m["perplexity"] == pytest.approx(math.exp(m["loss"]))
        assert m["bits_per_char"] == pytest.approx(m["loss"] / math.log(2))
        assert m["grad_norm"] > 0
        assert 0 < m["seconds"] < 60
        assert m["chars_per_sec"] > 0
    losses = [m["loss"] for m in metrics]
    assert losses == sorted(losses, reverse=True)
    assert losses[0] < math.log(len(vocabulary)) + 0.05  # it begins with a uniform prediction and learns
    assert losses[2] < losses[0] - 0.1


def test_samples_have_exactly_the_requested_length(trained: Trained):
    samples = records(trained.run_dir / "samples.jsonl")
    assert [(s["epoch"], s["prefix"]) for s in samples] == [(e, p) for e in (2, 3) for p in DOCUMENT_PREFIXES]
    for sample in samples:
        assert sample["text"].startswith(sample["prefix"])
        assert len(sample["text"]) == len(sample["prefix"]) + 30


def test_checkpoint_has_the_parameters_and_the_vocabulary(trained: Trained):
    text = "\n".join(verses()).replace("\n", " ")[:600]
    with safe_open(str(newest(trained.run_dir)), framework="numpy") as file:
        assert file.metadata()["vocabulary"] == "".join(sorted(set(text)))
        assert json.loads(file.metadata()["config"])["seq_len"] == 5
        shapes = {name: file.get_tensor(name).shape for name in file.keys()}  # noqa: SIM118
        assert (shapes.pop("state.h"), shapes.pop("state.c")) == ((4, 8), (4, 8))
        assert {file.get_tensor(name).dtype for name in shapes} == {np.dtype(np.float32)}
    assert shapes == dict(parameter_shapes(len(set(text)), 8))
    assert len(shapes) == 14


def test_perplexity_plot_is_a_png_file(trained: Trained):
    data = (trained.run_dir / "perplexity.png").read_bytes()
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    assert b"IEND" in data[-12:]


def test_output_has_metrics_and_samples_and_no_progress_bar(trained: Trained):
    lines = trained.stdout.splitlines()
    if os.geteuid() == 0:
        assert lines.pop(0).startswith("warning: running as root: ")
    assert re.fullmatch(r"corpus: first 600 of 3,65\d characters of song\.txt, \d+ distinct", lines[0])
    assert re.fullmatch(r"1 worker on .+, [\d,]+ parameters, 4 consecutive streams of 5, 29 steps an epoch", lines[1])
    number = r" *[\d,.]+"
    line = rf"epoch {{}}/3 \| perplexity{number} \|{number} bits/char \| grad norm{number} \|{number} chars/s"
    line += r" \| 00:\d\d left"
    samples = [record["text"] for record in records(trained.run_dir / "samples.jsonl")]
    assert re.fullmatch(r"gradients: 0\.0\d+ MB a step", lines[2])
    assert re.fullmatch(line.format(2), lines[3])
    assert lines[4:7] == [f" - {text}" for text in samples[:3]]
    assert re.fullmatch(line.format(3), lines[7])
    assert lines[8:11] == [f" - {text}" for text in samples[3:]]
    assert lines[11:] == [f"everything is in {trained.run_dir}"]
    assert shown_log(trained.run_dir) == trained.stdout
    assert "\r" not in trained.stdout + trained.stderr
    assert "char/s]" not in trained.stdout + trained.stderr


def test_help_lists_the_flags():
    result = run([*TRAIN, "--help"], env={"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONIOENCODING": None})
    assert result.returncode == 0
    for part in (
        "--hidden-size N",
        "--sampling consecutive|random",
        "(default 256)",
        "战争中部队",
        "horovodrun -np N",
    ):
        assert "".join(part.split()) in "".join(result.stdout.split())  # ignoring line breaks
    assert result.stderr == ""


# Other runs


def test_posix_locale_does_not_change_the_results(trained: Trained, song_file: Path, tmp_path: Path):
    """Two runs of the same command, one in the POSIX locale, have equal results."""
    env = {"LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    result = train(tmp_path, song_file, *TRAINED_FLAGS, env=env)
    assert without_times(tmp_path / "run") == without_times(trained.run_dir)

    def plain(text: str) -> str:
        return re.sub(r" *[\d,]+ chars/s \| [\d:]+ left|everything is in .*", "", text)

    assert plain(result.stdout) == plain(trained.stdout)
    assert result.stderr == ""


def test_other_corpus_uses_its_first_lines_as_escaped_prefixes(tmp_path: Path):
    first = ["海\x1b[31m红", "短", "一条比五个字长的线"]
    lines = [*first, *(line.replace("分", "合") for line in verses()[:40])]
    corpus = tmp_path / os.fsdecode("歌".encode() + b"\xff.txt")
    corpus.write_bytes("\r\n".join(lines).encode())
    result = train(tmp_path, corpus, "--sample-length=7", "--epochs=1", "--sampling=random", "--seed=3")
    assert "the corpus lacks characters of the D2L chapter's prefixes: samples begin as its" in result.stdout
    samples = records(tmp_path / "run" / "samples.jsonl")
    assert [s["prefix"] for s in samples] == ["海\x1b[31", "短", "一条比五个"]
    assert [len(s["text"]) for s in samples] == [12, 8, 12]
    assert " - 海\\x1b[31" in result.stdout
    assert "歌\\udcff.txt, " in result.stdout
    assert "\x1b" not in result.stdout + result.stderr + (tmp_path / "run" / "log.txt").read_text(encoding="utf-8")
    config = json.loads((tmp_path / "run" / "config.json").read_bytes())
    assert config["corpus"] == str(corpus)
    assert (config["state_reset"], config["global_batch_size"]) == ("window", 4)


def test_run_starts_from_given_weights_and_overwrites_old_files(trained: Trained, song_file: Path, tmp_path: Path):
    """With a learning rate of 1e-30 the weights stay bit-identical; this also covers --overwrite and --config."""
    held = tmp_path / "run"
    held.mkdir()
    (held / "log.txt").write_text("an old run")
    (held / "notes.md").write_text("mine")
    weights = newest(trained.run_dir)
    config = tmp_path / "run.toml"
    config.write_text(f'init = "{weights}"\nlearning_rate = 0.7\nprefix = ["路"]\nepochs = 9', encoding="utf-8")
    result = train(
        tmp_path, song_file, f"--config={config}", "--learning-rate=1e-30", "--overwrite", "--sample-length=40"
    )
    assert (held / "notes.md").read_text() == "mine"
    assert shown_log(held) == result.stdout
    before, after = without_times(trained.run_dir), without_times(held)
    assert after["weights"] == before["weights"]
    assert after["vocabulary"] == before["vocabulary"]
    losses = [m["loss"] for m in records(held / "metrics.jsonl")]
    assert losses[0] == losses[1]  # two epochs, from the command line, and not the nine of the file
    assert (
        losses[0] < records(trained.run_dir / "metrics.jsonl")[-1]["loss"]
    )  # evaluated with the weights after that epoch
    (sample,) = records(held / "samples.jsonl")
    assert (sample["prefix"], len(sample["text"])) == ("路", 41)


def test_run_without_a_directory_creates_one(song_file: Path, tmp_path: Path):
    result = run([*TRAIN, f"--corpus={song_file}", *TINY, "--epochs=1", "--prefix=分开"], cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    (made,) = (tmp_path / "runs").iterdir()
    assert result.stdout.splitlines()[-1] == f"everything is in runs/{made.name}"
    assert newest(made).exists()
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def on_a_terminal(argv: Sequence[str], through_the_environment: bool) -> "tuple[int, str, str]":
    """Run a program on a pseudo-terminal; return its status, what the terminal shows, and what a piped stdout gets."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    env = environment({"LSTM_DIST_TERMINAL": os.ttyname(theirs)} if through_the_environment else None)
    stdout = subprocess.PIPE if through_the_environment else theirs
    process = subprocess.Popen(
        [sys.executable, *argv[1:]],
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.STDOUT,
        env=env,
        start_new_session=True,
    )
    shown = b""
    try:
        while process.poll() is None or select.select([ours], [], [], 0.2)[0]:
            if select.select([ours], [], [], 0.2)[0]:
                shown += os.read(ours, 65536)
        piped = process.stdout.read() if process.stdout else b""
    finally:
        process.kill()
        process.wait(timeout=10)
        if process.stdout:
            process.stdout.close()
        os.close(ours)
        os.close(theirs)
    return process.returncode, shown.decode(), piped.decode()


@pytest.mark.parametrize("through_the_environment", [False, True], ids=["stdout", "LSTM_DIST_TERMINAL"])
def test_terminal_shows_a_progress_bar(song_file: Path, tmp_path: Path, through_the_environment: bool):
    flags = [*TINY, "--epochs=40", "--log-every=20", "--prefix=分开", "--sample-length=4"]
    argv = [*TRAIN, f"--corpus={song_file}", f"--run-dir={tmp_path / 'run'}", *flags]
    status, shown, piped = on_a_terminal(argv, through_the_environment)
    assert status == 0, shown
    assert piped == ""
    assert re.search(r"\r +\d+%\|[^\r\n]+char/s\]", shown)
    log = shown_log(tmp_path / "run")
    assert log.count("\nepoch ") == 2
    lines = [line.rsplit("\r")[-1] for line in shown.replace("\r\n", "\n").split("\n")]
    for line in log.splitlines():  # the progress bar breaks none of them
        assert line in lines
    assert "%" not in log


def test_gradient_is_scaled_by_the_reference_batch_size(song_file: Path, tmp_path: Path):
    """At B = 4, B_ref = 8 with half the rate gives the same step; so does the default 32 with an eighth of it."""
    weights = []
    for name, reference, rate in (("own", 4, 0.8), ("double", 8, 0.4), ("default", 32, 0.1)):
        flags = (f"--reference-batch-size={reference}", f"--learning-rate={rate}", "--max-norm=1e9")
        train(tmp_path / name, song_file, *flags)
        weights.append(load_checkpoint(newest(tmp_path / name / "run"), "").parameters)
    for name, value in weights[0].items():
        for other in weights[1:]:
            np.testing.assert_allclose(other[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
