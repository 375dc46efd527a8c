"""Prepared corpora: contents, refusal of damaged or incomplete ones, replacement, and choice of the vocabulary."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Callable, List

import numpy as np
import pytest

from lstm_dist.data.corpus import UNKNOWN, Vocabulary, code_points
from lstm_dist.data.token_dataset import MANIFEST, VOCABULARY, Manifest, StagingDir, load, open_corpus, vocabulary_json
from lstm_dist.data.token_file import TOKENS, npy_header, token_type
from lstm_dist.data.tokenize import CODE_POINTS, choose_vocabulary
from lstm_dist.errors import UserError

TEXT = "天地人和，天时地利。"


def make(out: Path, overwrite: bool = False, text: str = TEXT) -> Path:
    """Write a prepared corpus as jobs/prepare.py does, and return its folder."""
    staging, vocabulary = StagingDir(out, overwrite), Vocabulary(text)
    tokens = npy_header(np.dtype("<u1"), len(text)) + vocabulary.encode(text).astype("<u1").tobytes()
    (staging.folder / TOKENS).write_bytes(tokens)
    written = vocabulary_json(vocabulary, [text.count(c) for c in vocabulary.characters])
    facts = {"chars": len(text), "unknown": 0, "min_count": 1, "max_vocab": 0, "first_lines": [text[:5]]}
    digests = {"blocks": [hashlib.sha256(tokens).hexdigest()], "vocabulary": hashlib.sha256(written).hexdigest()}
    staging.commit(Manifest(files=[("a.txt", 30)], **facts, **digests), written)
    return out


def test_prepared_corpus_contains_its_text(tmp_path: Path):
    corpus = load([make(tmp_path / "out")], 0, 10**6)
    assert (corpus.text, corpus.total_chars, corpus.first_lines) == (TEXT, 10, ["天地人和，"])
    assert corpus.vocabulary == Vocabulary(TEXT)
    assert corpus.tokens.dtype == np.uint8
    assert load([tmp_path / "out"], 4, 10**6).text == TEXT[:4]
    assert np.load(tmp_path / "out" / TOKENS).tolist() == np.asarray(corpus.tokens).tolist()
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MANIFEST, TOKENS, VOCABULARY]


def test_equal_corpora_have_equal_digests(tmp_path: Path):
    first, same, other = (
        open_corpus(make(tmp_path / name, text=text), 0).digest
        for name, text in (("a", TEXT), ("b", TEXT), ("c", TEXT[::-1]))
    )
    assert first == same != other


@pytest.mark.parametrize(
    ("vocab_size", "name"), [(2, "|u1"), (256, "|u1"), (257, "<u2"), (65_536, "<u2"), (65_537, "<u4")]
)
def test_tokens_have_the_smallest_type_for_the_vocabulary(vocab_size: int, name: str):
    assert np.dtype(token_type(vocab_size)).str == name


def damage(path: Path, act: Callable[[bytes], bytes]) -> None:
    path.write_bytes(act(path.read_bytes()))


@pytest.mark.parametrize(
    ("name", "act", "message"),
    [
        (
            TOKENS,
            lambda data: data[:-1],
            "is damaged, tokens.npy has a wrong size or header: prepare it again",
        ),
        (TOKENS, lambda data: data + b"\0", "is damaged, tokens.npy has a wrong size or header"),
        (TOKENS, lambda data: b"\0" + data[1:], "is damaged, tokens.npy has a wrong size or header"),
        (VOCABULARY, lambda data: data.replace(b"1", b"2", 1), "is damaged, vocabulary.json does not match its hash"),
        (MANIFEST, lambda data: data[:-9], "is damaged, manifest.json is not a valid manifest"),
        (MANIFEST, lambda data: data.replace(b'"chars": 10', b'"chars": "x"'), "manifest.json is not a valid manifest"),
        (MANIFEST, lambda data: data.replace(b'"digest": "', b'"digest": "0'), "manifest.json does not match its hash"),
        (MANIFEST, lambda _: b"[]", "manifest.json is not a valid manifest"),
        (MANIFEST, lambda data: data.replace(b'"format": 1', b'"format": 2'), "has format 2, this program reads 1"),
    ],
)
def test_damaged_corpus_is_refused(tmp_path: Path, name: str, act: Callable[[bytes], bytes], message: str):
    damage(make(tmp_path / "out") / name, act)
    with pytest.raises(UserError, match=f"^--corpus {tmp_path / 'out'}: .*{message}"):
        open_corpus(tmp_path / "out", 0)


@pytest.mark.parametrize("name", [TOKENS, VOCABULARY, MANIFEST])
def test_corpus_with_a_missing_file_is_refused(tmp_path: Path, name: str):
    (make(tmp_path / "out") / name).unlink()
    with pytest.raises(UserError, match=f"^--corpus {tmp_path / 'out'}: "):
        open_corpus(tmp_path / "out", 0)


@pytest.mark.parametrize("text", ['{"name": "poems", "version": 3}', "[1, 2]", "not JSON"])
def test_folder_of_texts_may_have_a_manifest_of_another_program(tmp_path: Path, text: str):
    (tmp_path / MANIFEST).write_text(text)
    (tmp_path / "poem.txt").write_text(TEXT, encoding="utf-8")
    assert load([tmp_path], 0, 10**6).text == TEXT


@pytest.mark.parametrize("kept", [MANIFEST, TOKENS])
def test_corpus_that_has_lost_files_is_not_taken_for_a_folder_of_texts(tmp_path: Path, kept: str):
    for path in make(tmp_path / "out").iterdir():
        if path.name != kept:
            path.unlink()
    with pytest.raises(UserError, match=f"^--corpus {tmp_path / 'out'}: is (damaged|not a prepared corpus)"):
        load([tmp_path / "out"], 0, 10**6)


def test_incomplete_corpus_is_refused_and_can_be_prepared_again(tmp_path: Path):
    program = "import sys; from pathlib import Path; from lstm_dist.data.token_dataset import StagingDir; "
    program += "staging = StagingDir(Path(sys.argv[1]), False); print(flush=True); input()"
    command = [sys.executable, "-c", program, str(tmp_path / "out")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        assert other.stdout.readline() == b"\n"
        with pytest.raises(UserError, match="--out .*: another job is writing there"):
            StagingDir(tmp_path / "out", overwrite=False)
        (tmp_path / "out.partial" / TOKENS).write_bytes(b"half")
        other.kill()
    with pytest.raises(UserError, match=r"is not a prepared corpus \(it has no manifest.json\)"):
        open_corpus(tmp_path / "out.partial", 0)
    assert not (tmp_path / "out").exists()
    assert load([make(tmp_path / "out")], 0, 10**6).text == TEXT


def test_existing_corpus_is_kept_without_overwrite(tmp_path: Path):
    make(tmp_path / "out")
    with pytest.raises(UserError, match="already contains a prepared corpus: give --overwrite, or another"):
        StagingDir(tmp_path / "out", overwrite=False)
    assert load([tmp_path / "out"], 0, 10**6).text == TEXT
    make(tmp_path / "out", overwrite=True, text=TEXT[::-1])
    assert load([tmp_path / "out"], 0, 10**6).text == TEXT[::-1]
    (tmp_path / "out" / "precious").touch()
    for overwrite in (False, True):
        with pytest.raises(UserError, match="contains "):
            StagingDir(tmp_path / "out", overwrite)
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_other_folders_beside_the_corpus_are_kept(tmp_path: Path):
    (tmp_path / "out.old").mkdir()
    (tmp_path / "out.old" / "precious").touch()
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out.partial" / "mine").touch()
    make(tmp_path / "out")
    make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out.old" / "precious").exists()
    assert (tmp_path / "out.partial" / "mine").exists()


def test_previous_corpus_is_restored_after_interrupted_replacement(tmp_path: Path):
    make(tmp_path / "out")
    (tmp_path / "out.partial").mkdir()
    (tmp_path / "out").rename(tmp_path / "out.partial" / "before")
    with pytest.raises(UserError, match="already contains a prepared corpus: give --overwrite, or another"):
        StagingDir(tmp_path / "out", overwrite=False)
    assert load([tmp_path / "out"], 0, 10**6).text == TEXT
    make(tmp_path / "out", overwrite=True, text=TEXT[::-1])
    assert load([tmp_path / "out"], 0, 10**6).text == TEXT[::-1]


def test_folder_created_by_another_job_is_not_replaced(tmp_path: Path):
    staging = StagingDir(tmp_path / "out", overwrite=False)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious").touch()
    with pytest.raises(UserError, match="contains other files: give another folder"):
        staging.commit(None, b"")  # type: ignore[arg-type]
    staging.close()
    assert (tmp_path / "out" / "precious").exists()


@pytest.mark.parametrize("out", ["/", "."])
def test_invalid_folder_name_is_refused(out: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "precious").touch()
    with pytest.raises(UserError, match="^--out "):
        StagingDir(Path(out), overwrite=True)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def test_unreadable_folder_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    make(tmp_path / "out")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(UserError, match=r"is not a prepared corpus \(Permission denied\)"):
        open_corpus(tmp_path / "out", 0)
    with pytest.raises(UserError, match="cannot be read"):
        load([Path("x" * 300)], 0, 10**6)


def test_encoding_without_effect_is_refused(tmp_path: Path):
    corpus = make(tmp_path / "out")
    with pytest.raises(UserError, match=f"^--encoding big5: has no effect on the prepared corpus {corpus}: leave it"):
        load([corpus], 0, 10**6, "big5")
    with pytest.raises(UserError, match="^--encoding big5: has no effect on the packaged songs: leave it out"):
        load([], 0, 10**6, "big5")


# The vocabulary


def counts_of(text: str) -> np.ndarray:
    return np.bincount(code_points(text), minlength=CODE_POINTS)


@pytest.mark.parametrize(
    ("min_count", "max_vocab", "kept"),
    [
        (1, 0, "abcde"),
        (2, 0, "abc" + UNKNOWN),
        (1, 5, "abcde"),
        (1, 4, "abc" + UNKNOWN),
        (1, 3, "ab" + UNKNOWN),  # b and c are equally frequent, d and e less so
        (3, 9, "a" + UNKNOWN),
        (9, 0, UNKNOWN),
    ],
)
def test_vocabulary_keeps_the_most_frequent_characters(min_count: int, max_vocab: int, kept: str):
    found = choose_vocabulary(counts_of("aaabbccde"), min_count, max_vocab)
    assert found.characters == kept
    assert found.unknown == (kept.index(UNKNOWN) if UNKNOWN in kept else None)


def test_unknown_character_that_occurs_in_the_text_is_kept():
    assert choose_vocabulary(counts_of("ab" + UNKNOWN), 1, 0).characters == "ab" + UNKNOWN
    assert choose_vocabulary(counts_of("aab" + UNKNOWN * 9), 2, 0).characters == "a" + UNKNOWN


def test_code_points_are_exact_for_narrow_and_wide_texts():
    texts: List[str] = ["", "a中\ud7ff\ue000\uffff", "a😀中\U0010ffff"]
    for text in texts:
        assert code_points(text).tolist() == [ord(c) for c in text]
    assert json.loads(vocabulary_json(Vocabulary("b😀"), [1, 2])) == {"characters": "b😀", "counts": [1, 2]}
