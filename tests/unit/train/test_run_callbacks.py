"""Decisions that a worker bases on its own weights are made on all workers or on none."""

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Dict, List

import mxnet as mx
import pytest

from lstm_dist.cluster.energy import Meter
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train import interval
from lstm_dist.train.attempt_record import AttemptRecord
from lstm_dist.train.callbacks import Progress
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.interval import Intervals
from lstm_dist.train.run_callbacks import GuardedCallbacks, RunCallbacks
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
    session = Session(job, None, world, tmp_path, RunLog(), AttemptRecord(tmp_path / "absent", world, 7), Meter())
    callbacks = RunCallbacks(session, {"code": "digest"}, StopRequest(), Watchdog())
    with pytest.raises(CollectiveError, match=words):
        callbacks.commit(Progress(step=7), model.zero_state(2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("phase", "then"), [("checkpoint", "step"), ("samples", "samples"), ("validation", "step")])
def test_step_after_a_checkpoint_or_an_evaluation_has_the_time_of_a_step(phase: str, then: str):
    """After samples, which the root alone writes, the other ranks wait for it in their next step."""
    phases: List[str] = []
    watchdog = SimpleNamespace(beat=lambda phase, _: phases.append(phase))
    callbacks = GuardedCallbacks(FakeWorld(), StopRequest(), watchdog, Intervals())
    callbacks.beat(phase, 3)
    callbacks.begin_steps(3)
    assert phases[-1] == then


@pytest.mark.parametrize(("eval_every", "reports"), [("5steps", False), ("1m", False), ("1epoch", True)])
def test_report_is_due_an_interval_after_an_evaluation_that_is_part_of_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, eval_every: str, reports: bool
):
    """Otherwise a report of a single step would follow each evaluation that takes longer than the interval."""
    now = SimpleNamespace(seconds=1000.0)
    monkeypatch.setattr(interval, "time", SimpleNamespace(monotonic=lambda: now.seconds))
    settings = parse_config(["--valid-fraction=0.1", "--log-every=10s", f"--eval-every={eval_every}"])
    world, job = FakeWorld(), Job(settings, None, None, None, None, [])
    session = Session(job, None, world, tmp_path, RunLog(), AttemptRecord(tmp_path / "absent", world, 7), Meter())
    callbacks = RunCallbacks(session, {}, StopRequest(), Watchdog())
    now.seconds += 11
    callbacks.validate(0.5, math.inf)
    assert callbacks.requests().report == reports
    now.seconds += 11
    assert callbacks.requests().report
