"""What is concluded from a worker's own weights is concluded on all workers, or on none."""

from pathlib import Path

import mxnet as mx
import pytest

from lstm_dist.corpus import Vocabulary
from lstm_dist.errors import ExitStatus
from lstm_dist.group import SettledError
from lstm_dist.keeper import Keeper
from lstm_dist.model import CharLSTM
from lstm_dist.runlog import RunLog
from lstm_dist.stop import Stop
from lstm_dist.trainer import Progress
from lstm_dist.watchdog import Watchdog


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
