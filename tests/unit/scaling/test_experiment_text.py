"""The text of the timed jobs: a part of the corpus, for all numbers of workers with one vocabulary."""

from pathlib import Path
from typing import List

import pytest

from lstm_dist.data.batching import ConsecutiveBatches
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import UserError
from lstm_dist.scaling.experiment_folder import ExperimentFolder
from lstm_dist.scaling.experiment_text import experiment_text, text_length
from lstm_dist.train.command_line import parse_config
from tests.support.verses import verses

B, T, STEPS, WORKERS = 4, 5, 6, 4
ONE = text_length(B, STEPS, T)
VERSES = "\n".join(verses())
KNOWN = "".join(sorted(set(VERSES.replace("\n", " ")[:ONE])))


def texts(folder: Path, corpus: str) -> List[str]:
    """Return the texts of experiments with one, two, ... workers at most."""
    (folder / "corpus").write_text(corpus, encoding="utf-8")
    config = parse_config([f"--corpus={folder}/corpus", f"--seq-len={T}"])
    return [experiment_text(config, ONE, workers) for workers in range(1, WORKERS + 1)]


@pytest.mark.parametrize("length", [4 * ONE + 9, 2 * ONE, 2 * ONE - 7, ONE, ONE + 1, ONE - 1, 3 * T, 1])
def test_all_jobs_have_the_same_steps_and_vocabulary(tmp_path: Path, length: int):
    found = texts(tmp_path, VERSES[:length])
    for workers, text in enumerate(found, 1):
        assert len(text) == workers * ONE
        assert found[-1].startswith(text), "an experiment is continued with more workers"
        assert set(text) == set(found[0])
        vocabulary = Vocabulary(text)
        batches = ConsecutiveBatches(vocabulary.encode(text), workers * B, T, 0, workers)
        assert batches.steps_per_epoch == STEPS
    assert found[0][:length] == VERSES.replace("\n", " ")[: min(length, ONE)]


def test_text_is_the_beginning_of_the_corpus(tmp_path: Path):
    corpus = VERSES.replace("\n", " ")[: WORKERS * ONE]
    text = texts(tmp_path, VERSES)[-1]
    assert len(text) == len(corpus)
    assert [own for own, there in zip(text, corpus) if there in KNOWN] == [there for there in corpus if there in KNOWN]
    others = {there: own for own, there in zip(text, corpus) if there not in KNOWN}
    assert len(others) > 9
    assert len(set(others.values())) > len(others) / 2, "the lacking characters remain different ones"


@pytest.mark.parametrize("length", [ONE, ONE // B, 2 * ONE // B])
def test_workers_have_different_characters_in_a_step_of_a_repeated_corpus(tmp_path: Path, length: int):
    text = texts(tmp_path, VERSES[:length])[-1]
    stream = ONE // B
    workers = [text[start : start + ONE] for start in range(0, len(text), ONE)]
    for place in range(0, STEPS * T, T):
        shares = {"".join(own[k * stream + place :][:T] for k in range(B)) for own in workers}
        assert len(shares) == WORKERS


def test_text_of_a_folder_is_kept_and_extended(tmp_path: Path):
    folder, file = ExperimentFolder(tmp_path), tmp_path / "corpus.txt"
    folder.write_corpus("一二三")
    assert file.read_text(encoding="utf-8") == "一二三"
    folder.write_corpus("一二三四五")
    assert file.read_text(encoding="utf-8") == "一二三四五"
    file.write_text("一二一二", encoding="utf-8")  # as an earlier version repeated it
    for wanted in ("一二", "一二三四"):
        folder.write_corpus(wanted)
        assert file.read_text(encoding="utf-8") == "一二一二"
    folder.write_corpus("一二三四五六")
    assert file.read_text(encoding="utf-8") == "一二一二五六"
    file.write_bytes(b"\xff")
    with pytest.raises(UserError, match=r"--out .*: corpus.txt is damaged: remove it"):
        folder.write_corpus("一二三")
