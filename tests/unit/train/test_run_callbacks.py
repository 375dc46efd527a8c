"""Decisions that a worker bases on its own weights are made on all workers or on none."""

from pathlib import Path
from types import SimpleNamespace
from typing import Dict

import mxnet as mx
import pytest

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.attempt_record import AttemptRecord
from lstm_dist.train.callbacks import Progress
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.run_callbacks import RunCallbacks
from lstm_dist.train.session import Session
from lstm_dist.train.setup import Job
from tests.support.fake_world import FakeWorld


@pytest.mark.parametrize(
    ("others", "words"),
    [
        ({}, "step 7: the weights are not finite"),
        ({"weights": "other"}, "step 7: ranks differ: rank 1 .* has weights"),
    ],
)
def test_weights_are_compared_before_they_are_checked_and_saved(tmp_path: Path, others: Dict[str, str], words: str):
    model = CharLSTM(4, 3, mx.cpu())
    model.parameters.flat[:] = float("nan")
    job = Job(parse_config([]), SimpleNamespace(vocabulary=Vocabulary("天地人和")), None, model, None, [])
    world = FakeWorld(answers={"step 7": [["a", {}], ["b", others]]})
    session = Session(job, None, world, tmp_path, RunLog(), AttemptRecord(tmp_path / "absent", world, 7))
    callbacks = RunCallbacks(session, {}, StopRequest(), Watchdog())
    with pytest.raises(CollectiveError, match=words):
        callbacks.commit(Progress(step=7), model.zero_state(2))
    assert list(tmp_path.iterdir()) == []
