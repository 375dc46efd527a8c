"""Invalid input is reported in one line that names its flag, with an exit status, and changes no file."""

import dataclasses
import gzip
import re
import struct
import subprocess
import time
import zipfile
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence

import numpy as np
import pytest
from safetensors.numpy import load_file, save, save_file

from lstm_dist.cluster import devices
from lstm_dist.errors import UserError
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.setup import set_up
from tests.support.fake_world import FakeWorld, SilentStartup
from tests.support.launchers import ENVIRONMENT, mpirun
from tests.support.programs import TINY, TRAIN, newest, run
from tests.support.refusals import refusal, train_main
from tests.support.trained import Trained


def set_up_refusal(*flags: str, rank: int = 0, size: int = 1) -> str:
    """Return the error message that these flags cause during the set-up, before anything is written."""
    with pytest.raises(UserError) as caught:
        set_up(parse_config([*TINY, *flags]), FakeWorld(rank, size), SilentStartup())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def snapshot(folder: Path) -> Dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else b"" for p in folder.rglob("*")}


# The corpus


def test_short_corpus_is_reported_with_the_required_length(tmp_path: Path):
    path = tmp_path / "short.txt"
    for sampling, needed in (("consecutive", 4 * (5 + 1)), ("random", 4 * 5 + 1)):
        path.write_text("天" * (needed - 1), encoding="utf-8")
        message = set_up_refusal(f"--corpus={path}", f"--sampling={sampling}")
        assert message.startswith(
            f"--corpus: too short, 4 streams of 5 characters need {needed} and it has {needed - 1}: "
        )
        path.write_text("天" * needed, encoding="utf-8")
        job = set_up(parse_config([*TINY, f"--corpus={path}", f"--sampling={sampling}"]), FakeWorld(), SilentStartup())
        assert job.batches.steps_per_epoch == 1


def test_validation_set_can_make_the_training_text_too_short(tmp_path: Path):
    (tmp_path / "a.txt").write_text("天地" * 50, encoding="utf-8")
    message = set_up_refusal(f"--corpus={tmp_path}/a.txt", "--valid-fraction=0.8")
    assert message.startswith("--valid-fraction 0.8: leaves 20 of 100 characters to train on; --corpus: too short, 4 ")
    assert message.endswith(", or lower --valid-fraction")
    assert "--valid-fraction" not in set_up_refusal(f"--corpus={tmp_path}/a.txt", "--seq-len=50")


def test_all_of_a_text_is_used_unless_it_is_cut(tmp_path: Path):
    (tmp_path / "a.txt").write_text("天地" * 15_000, encoding="utf-8")
    for flags, chars in (([], 30_000), (["--max-chars=20000"], 20_000)):
        settings = parse_config([f"--corpus={tmp_path}/a.txt", "--hidden-size=8", *flags])
        assert len(set_up(settings, FakeWorld(), SilentStartup()).text.tokens) == chars


def test_max_chars_can_make_the_corpus_too_short(song_file: Path):
    assert "need 24 and it has 10: " in set_up_refusal(f"--corpus={song_file}", "--max-chars=10")


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_more_workers_than_streams_are_refused_by_every_rank(song_file: Path, sampling: str):
    messages = {
        set_up_refusal(f"--corpus={song_file}", f"--sampling={sampling}", rank=rank, size=5) for rank in range(5)
    }
    (message,) = messages
    assert message.startswith("--global-batch-size 4: fewer streams than the 5 workers; ")
    set_up(parse_config([*TINY, f"--corpus={song_file}", f"--sampling={sampling}"]), FakeWorld(3, 4), SilentStartup())


def test_model_larger_than_memory_is_refused_before_allocation(song_file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(devices, "memory", lambda _: 2**30)
    began = time.monotonic()
    message = set_up_refusal(f"--corpus={song_file}", "--hidden-size=16384")
    assert time.monotonic() - began < 5
    words = r"--hidden-size 16384, --layers 1: with 4 streams of 5 and \d+ characters a worker needs \d\.\d GiB of "
    words += r"memory, \S+ has 1\.0"
    assert re.match(words, message)
    set_up(parse_config([*TINY, f"--corpus={song_file}"]), FakeWorld(), SilentStartup())


# The recurrence


@pytest.mark.parametrize("recurrence", ["persistent", "loop"])
def test_recurrence_of_gpus_is_refused_on_a_cpu(song_file: Path, recurrence: str):
    message = set_up_refusal(f"--corpus={song_file}", f"--recurrence={recurrence}")
    assert message.startswith(f"--recurrence {recurrence}: has an effect on a GPU only, and this worker computes on ")
    assert message.endswith(": leave it out, or use --device gpu")
    settings = parse_config([*TINY, f"--corpus={song_file}"])
    set_up(dataclasses.replace(settings, recurrence="auto"), FakeWorld(), SilentStartup())
    resumed = {"resume": True, "run_dir": Path("a")}  # of a run that began on a GPU
    set_up(dataclasses.replace(settings, recurrence=recurrence, **resumed), FakeWorld(), SilentStartup())


# The prefixes


def test_prefix_must_occur_in_the_characters_that_are_read(song_file: Path):
    message = set_up_refusal(f"--corpus={song_file}", "--prefix=分开", "--prefix=雨☃雨☂")
    assert message.startswith("--prefix 雨☃雨☂: '☃☂' does not occur in first 600 of 3,65")
    late = song_file.read_text(encoding="utf-8")[-1000:].replace("\n", "")
    early = song_file.read_text(encoding="utf-8")[:50].replace("\n", " ")
    missing = next(c for c in late if c not in early)
    assert f"--prefix {missing}: " in set_up_refusal(f"--corpus={song_file}", "--max-chars=50", f"--prefix={missing}")


def test_lines_that_are_equal_give_one_prefix(tmp_path: Path):
    (tmp_path / "names.txt").write_text("ruth\nboas\nruth\n" * 9, encoding="utf-8")
    job = set_up(parse_config([*TINY, f"--corpus={tmp_path}/names.txt"]), FakeWorld(), SilentStartup())
    assert job.prefixes == ["ruth", "boas"]


# Initial weights


@pytest.fixture
def weights(trained: Trained) -> Path:
    return newest(trained.run_dir)


def reshaped(good: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {**good, "W_xi": np.ascontiguousarray(good["W_xi"].T)}


def without_one(good: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {name: value for name, value in good.items() if name != "b_f"}


def with_one_more(good: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {**good, "W_q": good["b_f"]}


def renamed(good: Dict[str, np.ndarray]) -> Dict[str, np.ndarray]:
    return {name.replace("W_hy", "W_hq"): value for name, value in good.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (reshaped, "parameter W_xi has shape (8, "),
        (without_one, "parameter b_f is missing, this model needs (8,)"),
        (with_one_more, "parameter W_q has shape (8,), this model has none of that name"),
        (renamed, "parameter W_hy is missing"),
    ],
)
def test_initial_weights_must_match_the_model(
    song_file: Path, weights: Path, tmp_path: Path, change: Callable[[Dict], Dict], expected: str
):
    path = tmp_path / "a.safetensors"
    save_file(change(load_file(str(weights))), str(path))
    message = set_up_refusal(f"--corpus={song_file}", f"--init={path}")
    assert message.startswith(f"--init {path}: {expected}")
    assert message.endswith("give weights of the same vocabulary, --hidden-size and --layers")


@pytest.mark.slow
def test_initial_weights_must_be_intact_and_match_the_corpus(song_file: Path, weights: Path, tmp_path: Path):
    corpus = f"--corpus={song_file}"
    assert (
        set_up(parse_config([*TINY, corpus, f"--init={weights}"]), FakeWorld(), SilentStartup()).model.weights.size
        > 1000
    )
    assert set_up_refusal(corpus, f"--init={weights}", "--hidden-size=9").startswith(
        f"--init {weights}: parameter W_xi has shape"
    )
    other = f"--init {weights}: was trained on other characters than --corpus has; use that corpus"
    assert set_up_refusal(corpus, f"--init={weights}", "--max-chars=100") == other
    assert set_up_refusal(corpus, f"--init={tmp_path}/a") == f"--init {tmp_path}/a: no such file"
    assert (
        set_up_refusal(corpus, f"--init={tmp_path}")
        == f"--init {tmp_path}: has no checkpoint; give a run of jobs/train.py, or a file"
    )
    job = set_up(parse_config([*TINY, corpus, f"--init={weights.parents[1]}"]), FakeWorld(), SilentStartup())
    assert job.resolved(1)["init"] == str(weights)
    assert job.settings.init == weights  # the last checkpoint of the run, under its own name
    path = tmp_path / "a.safetensors"
    path.write_bytes(weights.read_bytes()[:-1])
    assert set_up_refusal(corpus, f"--init={path}").startswith(f"--init {path}: is not an intact .safetensors file (")
    swapped = "".join(
        chr(0x4E00 + k) for k in range(len(load_file(str(weights))["b_y"]))
    )  # as many characters, but different ones
    path.write_bytes(save(load_file(str(weights)), {"vocabulary": swapped}))
    assert "was trained on other characters" in set_up_refusal(corpus, f"--init={path}")


# The real program


def bad_program(tmp_path: Path, *flags: str, status: int = 2, launcher: Sequence[str] = ()) -> str:
    """Run jobs/train.py in `tmp_path`, check what holds for all invalid input, and return the error line."""
    before = snapshot(tmp_path)
    started = time.monotonic()
    result = run([*launcher, *TRAIN, *TINY, *flags], cwd=tmp_path, env=ENVIRONMENT)
    assert time.monotonic() - started < 30
    assert snapshot(tmp_path) == before  # no file is written, changed or removed
    assert result.returncode == status, result.stderr
    # On a busy machine two workers may take more than 10 s to start, and the program then reports that.
    assert [line for line in result.stdout.splitlines() if not line.startswith("still starting after ")] == []
    lines = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1, result.stderr
    assert launcher or result.stderr == lines[0] + "\n"
    assert "Traceback" not in result.stderr
    return lines[0]


@pytest.fixture
def held(tmp_path: Path) -> Path:
    """Return tmp_path/run, a directory that holds a run."""
    run_dir = tmp_path / "run"
    (run_dir / "checkpoints").mkdir(parents=True)
    for name in ("config.json", "run.json", "metrics.jsonl", "samples.jsonl", "log.txt", "perplexity.png"):
        (run_dir / name).write_text(f"old {name}")
    (run_dir / "checkpoints" / "step-000000034.safetensors").write_text("old weights")
    return run_dir


@pytest.mark.slow
def test_directory_that_holds_a_run_is_refused(song_file: Path, tmp_path: Path, held: Path):
    line = bad_program(tmp_path, f"--corpus={song_file}", f"--run-dir={held}", status=73)
    assert line == (
        f"error: --run-dir {held}: already holds a run; use another directory, --resume to continue the run, or "
        "--overwrite to replace it"
    )


def bad_zip(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("../a.txt", "天地" * 999)


def bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"\0" * 2**26, 1))


def not_utf_8(path: Path) -> None:
    path.write_bytes(b"abc\n" + "分开".encode("gb18030"))


# Each command also has --overwrite, and must not overwrite the run. {0} is a file that the function, if any, creates.
BAD: Dict[str, "tuple[str, Optional[Callable[[Path], object]], str]"] = {
    "missing": ("--corpus={0}", None, r"--corpus {0}: no such file"),
    "gb18030": ("--corpus={0}", not_utf_8, r"--corpus {0}: not UTF-8, the first bad byte is 0xb7 at offset 4: .*"),
    "zip": (
        "--corpus={0}.zip",
        lambda p: bad_zip(p.with_name(p.name + ".zip")),
        r"--corpus {0}\.zip: refused, .*unsafe.*",
    ),
    "bomb": (
        "--corpus={0}.gz",
        lambda p: bomb(p.with_name(p.name + ".gz")),
        r"--corpus {0}\.gz: .* --max-corpus-bytes .*",
    ),
    "short": (
        "--corpus={0}",
        lambda path: path.write_text("天"),
        r"--corpus: too short, .* need 24 and it has 1: .*",
    ),
    "value": ("--epochs=0", None, r"--epochs 0: should be greater than or equal to 1"),
    "flag": ("--epoch=1", None, r"--epoch: no such flag, did you mean --epochs\?; --help lists them all"),
    "init": ("--init={0}", lambda path: path.write_bytes(struct.pack("<Q", 99)), r"--init {0}: is not an intact .*"),
    "prefix": ("--prefix=☃", None, r"--prefix ☃: '☃' does not occur in .*"),
    "escape": (
        "--sampling=\x1b[2J\n",
        None,
        r"--sampling \\x1b\[2J\\n: should be 'consecutive' or 'random'",
    ),
}


STATUS = {"missing": 66, "gb18030": 65, "zip": 65, "bomb": 65, "short": 65, "init": 65}


@pytest.mark.parametrize("case", BAD)
def test_invalid_input_leaves_the_run_intact_despite_overwrite(
    song_file: Path, tmp_path: Path, held: Path, case: str, capsys: pytest.CaptureFixture
):
    flag, make, expected = BAD[case]
    path = tmp_path / "given"
    if make:
        make(path)
    flags: List[str] = [flag.replace("{0}", str(path)), f"--run-dir={held}", "--overwrite", "--max-corpus-bytes=100000"]
    if "--corpus" not in flag:
        flags.append(f"--corpus={song_file}")
    before = snapshot(tmp_path)
    status, message = refusal(train_main, [*TINY, *flags], capsys)
    assert status == STATUS.get(case, 2)
    assert re.fullmatch(expected.replace("{0}", re.escape(str(path))), message), message
    assert snapshot(tmp_path) == before


@pytest.mark.slow
def test_more_workers_than_streams_end_with_one_error_line(song_file: Path, tmp_path: Path, held: Path):
    flags = [f"--corpus={song_file}", f"--run-dir={held}", "--overwrite", "--global-batch-size=1"]
    line = bad_program(tmp_path, *flags, launcher=mpirun(2))
    assert line.startswith(
        "error: --global-batch-size 1: fewer streams than the 2 workers; give each worker at least one"
    )


def test_hung_programs_and_leftover_processes_are_detected(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tests.support.programs._GRACE", 0.5)
    with pytest.raises(TimeoutError, match="not at its end after 0.5 s"):
        run(["python", "-c", "import time; time.sleep(60)"], timeout=0.5)
    with pytest.raises(AssertionError, match="outlived"):
        run(["python", "-c", "import subprocess as s; s.Popen(['sleep', '60'], stdout=s.DEVNULL, stderr=s.DEVNULL)"])
    assert isinstance(run(["python", "-c", "raise SystemExit(3)"]), subprocess.CompletedProcess)
