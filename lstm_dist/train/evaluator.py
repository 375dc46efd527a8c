"""The loss of a model on a text, as if one worker read it from the first character to the last.

The text is cut into streams that are read in parallel and distributed to the workers:

    stream 0    the first L characters        starts with the zero state
    stream 1    the next L                    starts with the final state of stream 0
    stream 2    ...                           starts with the final state of stream 1

These states are unknown until the streams have been read. However, the influence of an LSTM's state vanishes after a
few hundred characters. Therefore the last characters of every stream are first read from the zero state, to estimate
all final states. Then everything is read; if a final state differs from the state with which the next stream started,
everything is read again from the new final states. Each round makes at least one more stream exact, so the iteration
terminates with any model; usually one round after the estimate is enough.
"""

from typing import Callable, List, NamedTuple, Optional, Tuple

import mxnet as mx
import numpy as np

from lstm_dist.comm.world import World
from lstm_dist.data.batching import Window, shard
from lstm_dist.data.token_file import Tokens, read_sequences
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.language_model import LanguageModel, LSTMState

WARM_UP = 512  # characters at the end of a stream that are read for the first estimate
TOLERANCE = 1e-5  # of an element of the state; results of one window at different batch sizes differ by 1e-6

Advance = Callable[[int], object]


def _no_progress(chars: int) -> None:
    """Ignore the progress."""


class Evaluation(NamedTuple):
    """The result of evaluating a model on a text.

    Attributes:
        loss: mean over all predicted characters, nats per character.
        chars: number of predicted characters: all but the first.
        rounds: how often the text was read.
    """

    loss: float
    chars: int
    rounds: int


class Evaluator:
    """Evaluates models on one text, with all workers together.

    The result does not depend on the number of workers or streams, except for float32 rounding.

    Attributes:
        chars: number of predicted characters.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, world: World) -> None:
        """Cut the text into streams.

        Args:
            tokens: of the text.
            streams: number of streams that are read in parallel.
            seq_len: characters in a window; does not affect the result.
            world: all workers.

        Raises:
            UserError: if there are more workers than streams, or more streams than characters.
        """
        self._rows = shard(streams, world.rank, world.size)
        self.chars = max(0, len(tokens) - 1)
        self._length = self.chars // streams
        if not self._length:
            raise UserError(f"{len(tokens):,} characters are too few for {streams:,} streams", ExitStatus.BAD_DATA)
        self._tokens, self._starts = tokens, np.arange(streams)[self._rows] * self._length
        # The last stream alone reads the remainder, which is too short to give every stream another character.
        self._rest = np.asarray(tokens[streams * self._length :] if self._rows.stop == streams else tokens[:0])
        self._streams, self._seq_len, self._world = streams, seq_len, world

    def evaluate(self, model: LanguageModel, advance: Advance = _no_progress) -> Evaluation:
        """Return the loss of a model; calls `advance` with the number of characters of each window of this worker."""
        state = model.zero_state(self._rows.stop - self._rows.start)
        starts = [part.asnumpy() for part in state]
        if self._streams > 1:
            _, end = self._read(model, state, max(0, self._length - WARM_UP), advance)
            starts = self._next_starts(end)
        rounds, is_settled = 0, False
        while not is_settled:
            rounds += 1
            loss, end = self._read(model, model.make_state(*starts), 0, advance)
            previous, starts = starts, self._next_starts(end)
            error = max(float(np.abs(a - b).max()) for a, b in zip(previous, starts))
            is_settled = rounds == self._streams or self._world.sum([error > TOLERANCE], "unsettled")[0] == 0
        total = self._world.sum([loss + self._read_rest(model, end, advance)], "loss")[0]
        return Evaluation(float(total) / self.chars, self.chars, rounds)

    def _read(self, model: LanguageModel, state: LSTMState, start: int, advance: Advance) -> Tuple[float, LSTMState]:
        """Read this worker's streams, each from character `start`; returns the summed loss and the final states."""
        total = 0.0
        pending: Optional[mx.nd.NDArray] = None
        for here in range(start, self._length, self._seq_len):
            stop = min(self._length, here + self._seq_len)
            window = Window.from_sequences(read_sequences(self._tokens, self._starts + here, stop - here + 1))
            loss, state = model.loss(window.inputs, window.targets, state)
            total += _value(pending)  # one window late, to keep the device busy
            pending = loss
            advance(window.inputs.size)
        return total + _value(pending), state

    def _next_starts(self, end: LSTMState) -> List[np.ndarray]:
        """Return the initial h and c of this worker's streams that follow from the final states of all streams."""
        ends = [self._world.gather_rows(array, f"end_{name}") for name, array in end._asdict().items()]
        return [np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])[self._rows] for rows in ends]

    def _read_rest(self, model: LanguageModel, end: LSTMState, advance: Advance) -> float:
        """Return the summed loss of the text after the last stream; 0 on workers without that stream."""
        total, state = 0.0, LSTMState(end.h[-1:], end.c[-1:])
        for here in range(0, len(self._rest) - 1, self._seq_len):
            window = Window.from_sequences(self._rest[None, here : here + self._seq_len + 1])
            loss, state = model.loss(window.inputs, window.targets, state)
            total += _value(loss)
            advance(window.inputs.size)
        return total


def _value(loss: Optional[mx.nd.NDArray]) -> float:
    """Wait for a loss, (1,), and return it; 0 for none."""
    return 0.0 if loss is None else float(loss.asscalar())
