"""The bytes of weak scaling follow from the characters in batches of the experiment's text."""

import json
from pathlib import Path
from typing import Any, Dict, List

import numpy as np
import pytest

from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import number_of_parameters
from lstm_dist.scaling.analysis import analyse
from lstm_dist.scaling.experiment_text import text_length
from lstm_dist.scaling.prediction import WORKERS
from lstm_dist.scaling.records import Experiment, read_rows
from lstm_dist.scaling.weak_bytes import weak_bytes
from tests.support.scaling_results import EXPERIMENT, network, save, scaling_point

B, T, H, V, STEPS = 32, 35, 1024, 1595, 8
PARAMETERS = number_of_parameters(V, H)
DENSE = 4 * (FLAGS + PARAMETERS)
SETTINGS: Dict[str, Any] = {**EXPERIMENT, "hidden_size": H, "parameters": PARAMETERS, "bytes": DENSE, "steps": STEPS}
ONE = text_length(B, STEPS, T)


def text(chars: int) -> str:
    """Return characters as frequent as in a natural text; all of the vocabulary are in one worker's text."""
    draw = np.random.default_rng(0)
    weights = 1 / np.arange(1, V + 1)
    drawn = draw.choice(V, chars, p=weights / weights.sum())
    drawn[draw.choice(ONE, V, replace=False)] = np.arange(V)
    return "".join(chr(0x4E00 + number) for number in drawn)


def written(folder: Path, content: str) -> Dict[int, int]:
    file = folder / "corpus.txt"
    file.write_text(content, encoding="utf-8")
    return weak_bytes(Experiment(**SETTINGS), file)


def counted(content: str, workers: int) -> List[int]:
    """Return the bytes of the batches at every place, with rows of W_x in multiples of 1,595 / 32, rounded up to 50."""
    length = len(content) // (workers * B)
    streams = [content[start : start + length] for start in range(0, workers * B * length, length)]
    places = range(length - T + 1)
    rows = [-(-len(set("".join(stream[place : place + T] for stream in streams))) // 50) * 50 for place in places]
    return [DENSE - 4 * 4 * H * (V - min(V, number)) for number in rows]


def test_bytes_are_counted_as_far_as_the_text_goes(tmp_path: Path):
    content = text(2 * ONE)
    found = written(tmp_path, content)
    assert list(found) == list(WORKERS)
    for workers in (1, 2, 4, 8):
        batches = counted(content, workers)
        assert min(batches) <= found[workers] <= max(batches) < DENSE
    assert found[1] < found[2] < found[4] < found[8]
    assert {found[workers] for workers in WORKERS if workers > 8} == {DENSE}


def test_repeated_text_counts_once(tmp_path: Path):
    content = text(ONE)
    repeated = written(tmp_path, 8 * content)
    assert repeated == written(tmp_path, content)
    assert repeated[4] < repeated[8] == DENSE


def test_all_parameters_are_sent_without_the_text(tmp_path: Path):
    nothing = weak_bytes(Experiment(**SETTINGS), tmp_path / "corpus.txt")
    assert nothing == written(tmp_path, "another text" * 1000) == dict.fromkeys(WORKERS, DENSE)
    (tmp_path / "corpus.txt").write_bytes(b"\xff" * 1000)
    assert weak_bytes(Experiment(**SETTINGS), tmp_path / "corpus.txt") == nothing


@pytest.mark.parametrize("least", [0, 40_000_000, DENSE])
def test_forecast_sends_what_is_counted_but_not_less_than_measured(tmp_path: Path, least: int):
    sent = written(tmp_path, text(2 * ONE))
    points = [
        {**scaling_point(mode, workers, 1), "bytes": max(least, sent[workers if mode == "weak" else 1])}
        for mode in ("weak", "strong")
        for workers in (1, 2)
    ]
    save(tmp_path, *points, *(network("horovod-mpi", workers) for workers in (2, 4)))
    (tmp_path / "experiment.json").write_text(json.dumps(SETTINGS))
    weak, strong = (mode.forecast for mode in analyse(read_rows(tmp_path, allow_mixed=False)).modes)
    assert weak
    assert strong
    assert [point.bytes for point in weak.points] == [max(least, sent[n]) for n in WORKERS if n > 1]
    assert {point.bytes for point in strong.points} == {max(least, sent[1])}, "the batch is the same"
    for edge in ("low", "middle", "high"):
        steps = [getattr(point, edge) for point in weak.points]
        assert steps == sorted(steps)
