"""What is concluded from a worker's own weights is concluded on all workers, or on none."""

from pathlib import Path

import mxnet as mx
import pytest

from lstm_dist.comm.process_group import SettledError
from lstm_dist.data.corpus import Vocabulary
from lstm_dist.errors import ExitStatus
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.run.run_log import RunLog
from lstm_dist.run.stop_request import Stop
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.hooks import Keeper
from lstm_dist.train.trainer import Progress


class Alone:
    """A world whose ranks agree or do not."""

    def __init__(self, agrees: bool) -> None:
        self.agrees = agrees

    def require_equal(self, *_: object) -> None:
        if not self.agrees:
            raise SettledError("rank 1 has another weights", ExitStatus.INTERNAL)


@pytest.mark.parametrize(
    ("agrees", "words"), [(True, "step 7: the weights are not finite"), (False, "another weights")]
)
def test_weights_are_compared_before_anything_is_concluded_from_them(tmp_path: Path, agrees: bool, words: str):
    model = CharLSTM(4, 3, mx.cpu())
    model.parameters.flat[:] = float("nan")
    keeper = Keeper(Alone(agrees), model, Vocabulary("天地人和"), tmp_path, RunLog(), Stop(), Watchdog())
    with pytest.raises(SettledError, match=words):
        keeper.commit(Progress(step=7), model.zero_state(2))
    assert list(tmp_path.iterdir()) == []
