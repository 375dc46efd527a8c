"""Conclusions from a worker's own weights are drawn on all workers, or on none."""

from pathlib import Path
from types import SimpleNamespace

import mxnet as mx
import pytest

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import ExitStatus
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.stop_request import StopRequest
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.callbacks import Progress
from lstm_dist.train.command_line import parse_config
from lstm_dist.train.run_callbacks import RunCallbacks
from lstm_dist.train.session import Session
from lstm_dist.train.setup import Job


class Alone:
    """A world whose ranks agree or do not."""

    def __init__(self, agrees: bool) -> None:
        self.agrees = agrees

    def require_equal(self, *_: object) -> None:
        if not self.agrees:
            raise CollectiveError("rank 1 has another weights", ExitStatus.INTERNAL)


@pytest.mark.parametrize(
    ("agrees", "words"), [(True, "step 7: the weights are not finite"), (False, "another weights")]
)
def test_weights_are_compared_before_anything_is_concluded_from_them(tmp_path: Path, agrees: bool, words: str):
    model = CharLSTM(4, 3, mx.cpu())
    model.parameters.flat[:] = float("nan")
    job = Job(parse_config([]), SimpleNamespace(vocabulary=Vocabulary("天地人和")), None, model, [])
    session = Session(job, None, Alone(agrees), tmp_path, RunLog())
    callbacks = RunCallbacks(session, {}, StopRequest(), Watchdog())
    with pytest.raises(CollectiveError, match=words):
        callbacks.commit(Progress(step=7), model.zero_state(2))
    assert list(tmp_path.iterdir()) == []
