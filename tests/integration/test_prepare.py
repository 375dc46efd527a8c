"""jobs/prepare.py writes the same bytes with any number of ranks, and reports invalid text in one line."""

import os
import signal
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from lstm_dist.data.token_dataset import load
from lstm_dist.errors import UserError
from lstm_dist.programs.prepare import main
from tests.support.launchers import ENVIRONMENT, mpirun
from tests.support.outcomes import same_bits
from tests.support.programs import ROOT, TINY, TRAIN, run
from tests.support.refusals import refusal

PREPARE = ("python", str(ROOT / "jobs" / "prepare.py"))
MEGABYTE = 2**20


def prepare(*words: str, ranks: int = 1, **how: Any) -> Any:
    launcher = mpirun(ranks) if ranks > 1 else []
    return run([*launcher, *PREPARE, *words], env=ENVIRONMENT, **how)


def contents(folder: Path) -> Dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> List[Path]:
    """Return three files, the second empty, with characters of one to four bytes and every kind of line end."""
    folder, rng = tmp_path_factory.mktemp("texts"), np.random.default_rng(5)
    signs = ["a", "é", "中", "文", "😀", "\n", "\r\n", "\r", "，"]
    files = [folder / name for name in ("a.txt", "empty.txt", "b.txt")]
    for path, size in zip(files, (4001, 0, 2999)):
        path.write_bytes("".join(rng.choice(signs, size)).encode())
    return files


def plain(texts: List[Path]) -> str:
    whole = "".join(path.read_bytes().decode() for path in texts)
    return whole.replace("\r\n", " ").replace("\r", " ").replace("\n", " ")


@pytest.mark.slow
@pytest.mark.parametrize("rules", [[], ["--max-vocab=5"]], ids=["all", "five"])
def test_prepared_bytes_are_independent_of_the_number_of_ranks(texts: List[Path], tmp_path: Path, rules: List[str]):
    made = {}
    for ranks in (1, 2, 3, 7):
        done = prepare(*map(str, texts), f"--out={tmp_path}/{ranks}", *rules, ranks=ranks)
        assert (done.returncode, done.stderr) == (0, ""), done.stderr
        made[ranks] = contents(tmp_path / str(ranks))
    assert sorted(made[1]) == ["manifest.json", "tokens.npy", "vocabulary.json"]
    assert all(files == made[1] for files in made.values())
    corpus = load([tmp_path / "7"], 0, 10**6)
    expected = plain(texts)
    if rules:
        kept = sorted(set(expected), key=lambda c: (-expected.count(c), c))[:4]
        expected = "".join(c if c in kept else "\ufffd" for c in expected)
    assert corpus.text == expected
    assert np.load(tmp_path / "2" / "tokens.npy").dtype == np.uint8


@pytest.mark.slow
def test_texts_in_other_encodings_are_prepared_as_in_utf_8(texts: List[Path], tmp_path: Path):
    wide = tmp_path / "b.txt"
    wide.write_bytes(texts[2].read_bytes().decode().encode("utf-16"))
    done = prepare(str(texts[0]), str(wide), f"--out={tmp_path}/out", ranks=2)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    assert load([tmp_path / "out"], 0, 10**6).text == plain([texts[0], texts[2]])
    assert "characters of a.txt and 1 more" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.txt", "out"]
    assert sorted(contents(tmp_path / "out")) == ["manifest.json", "tokens.npy", "vocabulary.json"]


@pytest.mark.slow
def test_folder_is_prepared_with_its_line_ends(texts: List[Path], tmp_path: Path):
    done = prepare(str(texts[0].parent), f"--out={tmp_path}/out", "--keep-newlines", ranks=2)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    whole = "".join(path.read_bytes().decode() for path in sorted(texts))
    for corpus in (tmp_path / "out", texts[0].parent):
        assert load([corpus], 0, 10**6, None, True).text == whole.replace("\r\n", "\n").replace("\r", "\n")
    assert prepare(*map(str, texts), f"--out={tmp_path}/spaces").returncode == 0
    assert b"newlines" not in contents(tmp_path / "spaces")["manifest.json"]
    with pytest.raises(UserError, match="has spaces instead of line ends: prepare it again with --keep-newlines"):
        load([tmp_path / "spaces"], 0, 10**6, None, True)
    with pytest.raises(UserError, match="is a prepared corpus, which cannot be combined with others"):
        load([texts[0], tmp_path / "out"], 0, 10**6)


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2])
def test_training_on_a_prepared_corpus_is_bit_identical(song_file: Path, tmp_path: Path, ranks: int):
    assert prepare(str(song_file), f"--out={tmp_path}/corpus").returncode == 0
    for name, corpus in (("text", song_file), ("prepared", tmp_path / "corpus")):
        # The whole text, so that both vocabularies are the same.
        words = [*TRAIN, *TINY, "--max-chars=0", f"--corpus={corpus}", f"--run-dir={tmp_path}/{name}"]
        done = run([*(mpirun(ranks) if ranks > 1 else []), *words], env=ENVIRONMENT)
        assert done.returncode == 0, done.stderr
    same_bits(tmp_path / "text", tmp_path / "prepared")
    assert "characters of song" in (tmp_path / "prepared" / "log.txt").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 3])
def test_invalid_utf8_is_reported_once_with_its_offset(tmp_path: Path, ranks: int):
    (tmp_path / "good.txt").write_text("好" * 1000, encoding="utf-8")
    (tmp_path / "bad.txt").write_bytes("坏".encode() * 900 + b"\xff" + "坏".encode() * 99)
    done = prepare(f"{tmp_path}/good.txt", f"{tmp_path}/bad.txt", f"--out={tmp_path}/out", ranks=ranks)
    assert done.returncode == 65
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert line.startswith(f"error: TEXT {tmp_path}/bad.txt: not UTF-8, the first bad byte is 0xff at offset 2700: ")
    assert not (tmp_path / "out").exists()
    assert ranks > 1 or not (tmp_path / "out.partial").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "TEXT: give the text files to prepare"),
        (["{0}/a.txt"], "--out: give the folder to create"),
        (["{0}/none.txt", "--out={0}/out"], "TEXT {0}/none.txt: no such file"),
        (["{0}/a.txt", "--out={0}/out", "--min-count=0"], "--min-count 0: should be at least 1"),
        (["{0}/a.txt", "--out={0}/out", "--max-vocab=1"], "--max-vocab 1: should be at least 2, or 0 for no limit"),
        (["{0}/a.txt", "--out={0}/out", "--encoding=utf-9"], "--encoding utf-9: should be an encoding of text"),
        (["{0}/a.txt", "--out={0}/full"], "--out {0}/full: contains other files: give another folder"),
        (["{0}/a.txt", "--out=/proc/out"], "--out /proc/out.partial: cannot be written ("),
        (
            ["--check={0}/full"],
            "--check {0}/full: is not a prepared corpus (it has no manifest.json)",
        ),
        (["--check={0}/full", "--max-vocab=9"], "--check: --max-vocab has no effect on it: leave it out"),
        (["--check={0}/full", "--encoding=big5"], "--check: --encoding has no effect on it: leave it out"),
        (["--check={0}/full", "--keep-newlines"], "--check: --keep-newlines has no effect on it: leave it out"),
        (["{0}/a.txt", "--out="], "--out: should not be empty"),
        (["{0}/a.txt", f"--out={'o' * 999}"], "--out: should have names of at most 255 bytes, one has 999"),
        (["--check={0}/full", "--out={0}/out"], "--check: cannot be combined with TEXT or --out: leave them out"),
    ],
)
def test_invalid_flag_is_reported_in_one_line(
    tmp_path: Path, words: List[str], message: str, capsys: pytest.CaptureFixture
):
    (tmp_path / "a.txt").write_text("abc")
    (tmp_path / "empty.txt").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious").write_text("mine")
    status, said = refusal(main, [word.format(tmp_path) for word in words], capsys)
    assert status in (2, 65, 66, 73)
    assert said.startswith(message.format(tmp_path))
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "out.partial").exists()
    assert (tmp_path / "full" / "precious").read_text() == "mine"


@pytest.mark.slow
def test_program_refuses_empty_files(tmp_path: Path):
    (tmp_path / "empty.txt").touch()
    done = prepare(f"{tmp_path}/empty.txt", f"--out={tmp_path}/out")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (65, "", 1)
    assert done.stderr.startswith("error: TEXT: the files contain no characters")
    assert [path.name for path in tmp_path.iterdir()] == ["empty.txt"]


@pytest.mark.slow
def test_check_detects_damage(tmp_path: Path):
    (tmp_path / "a.txt").write_text("天地人和" * 100, encoding="utf-8")
    assert prepare(f"{tmp_path}/a.txt", f"--out={tmp_path}/out").returncode == 0
    done = prepare(f"--check={tmp_path}/out")
    assert (done.returncode, done.stdout) == (0, f"{tmp_path}/out: 400 characters, all hashes match\n")
    path = tmp_path / "out" / "tokens.npy"
    data = bytearray(path.read_bytes())
    data[-7] ^= 1
    path.write_bytes(data)
    done = prepare(f"--check={tmp_path}/out")
    assert done.returncode == 65
    assert "is damaged, block 0 of tokens.npy does not match its hash: prepare it again" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("place", [-300, -5], ids=["training", "validation"])
@pytest.mark.parametrize("launcher", [[], mpirun(2)], ids=["alone", "mpirun"])
def test_tokens_outside_the_vocabulary_end_training_with_one_line(tmp_path: Path, launcher: List[str], place: int):
    (tmp_path / "a.txt").write_text("天地人和" * 500, encoding="utf-8")
    assert prepare(f"{tmp_path}/a.txt", f"--out={tmp_path}/out").returncode == 0
    path = tmp_path / "out" / "tokens.npy"
    data = bytearray(path.read_bytes())
    data[place] = 4  # in the last stream, so that the last rank reads it
    path.write_bytes(data)
    words = ["--global-batch-size=4", "--seq-len=20", "--hidden-size=8", "--epochs=2", f"--run-dir={tmp_path}/run"]
    words += ["--valid-fraction=0.05"]
    done = run([*launcher, *TRAIN, f"--corpus={tmp_path}/out", *words], env=ENVIRONMENT)
    assert done.returncode == 65, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "tokens.npy contains tokens outside the vocabulary: prepare it again" in line
    assert "Traceback" not in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGKILL, -9)])
def test_interrupted_preparation_leaves_no_corpus(tmp_path: Path, number: signal.Signals, status: int):
    (tmp_path / "a.txt").write_text("天地人和，" * 10**7, encoding="utf-8")
    words = (f"{tmp_path}/a.txt", f"--out={tmp_path}/out")
    partial = tmp_path / "out.partial" / "new" / "tokens.npy"
    done = prepare(
        *words,
        interrupt_when=lambda: partial.exists() and partial.stat().st_size > MEGABYTE,
        interrupt=lambda pid: os.killpg(pid, number),
    )
    assert done.returncode == status, done.stderr
    assert not (tmp_path / "out").exists()
    if number == signal.SIGINT:
        assert done.stderr.splitlines()[-1] == "error: interrupted"
        assert not (tmp_path / "out.partial").exists()
    else:
        done = run([*TRAIN, *TINY, f"--corpus={tmp_path}/out.partial/new"], cwd=tmp_path)
        assert done.returncode == 66
        assert "is not a prepared corpus (it has no manifest.json)" in done.stderr
    assert prepare(*words).returncode == 0
    assert not (tmp_path / "out.partial").exists()
    assert len(load([tmp_path / "out"], 0, 0).tokens) == 5 * 10**7
