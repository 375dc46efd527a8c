"""How well a model predicts a text: its loss, as if one worker read it from the first character to the last.

The text is cut into streams that are read side by side and shared out to the workers:

    stream 0    the first L characters        begins with the zero state
    stream 1    the next L                    begins with the state in which stream 0 ends
    stream 2    ...                           begins with the state in which stream 1 ends

Nobody knows these states before the streams have been read. But an LSTM forgets: what a state was, a few hundred
characters later, makes no difference any more. So the last characters of every stream are read once beforehand, from
the zero state, to have a guess of all ends. Then all is read; and if an end differs from what the stream after it has
begun with, all is read again from the ends that are known by now. Each round makes at least one more stream exact, so
that it comes to an end even with a model that forgets nothing; one more than the guess is what it usually takes.
"""

from typing import Callable, NamedTuple

import mxnet as mx
import numpy as np

from lstm_dist.comm.horovod_group import World
from lstm_dist.data.batching import Window, shard
from lstm_dist.data.token_file import Tokens, runs
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.model.char_lstm import CharLSTM, LSTMState

GUESS = 512  # characters at the end of a stream that are read for the first guess
TOLERANCE = 1e-5  # of an element of the state; what one window makes of a batch of another size differs by 1e-6

Advance = Callable[[int], object]


def _unheard(chars: int) -> None:
    """Nobody asks how far it is."""


class Score(NamedTuple):
    """What reading a text came to.

    Attributes:
        loss: nats per character, the mean over all.
        chars: how many were predicted: all but the first.
        rounds: how often the text was read.
    """

    loss: float
    chars: int
    rounds: int


class Scorer:
    """Reads one text, by all workers together, as often as it is asked to.

    The result does not depend on the number of workers or streams, but for the last digits of float32.
    """

    def __init__(self, tokens: Tokens, streams: int, seq_len: int, world: World) -> None:
        """Cut the text.

        Args:
            tokens: of the text.
            streams: that are read side by side.
            seq_len: characters in a window, which does not influence the result.
            world: all workers.

        Raises:
            UserError: when there are more workers than streams, or more streams than characters.
        """
        self._rows = shard(streams, world.rank, world.size)
        self.chars = max(0, len(tokens) - 1)
        self._length = self.chars // streams
        if not self._length:
            raise UserError(f"{len(tokens):,} characters are too few for {streams:,} streams", ExitStatus.BAD_DATA)
        self._tokens, self._starts = tokens, np.arange(streams)[self._rows] * self._length
        # What does not fill another character of every stream is read by the last stream alone.
        self._rest = np.asarray(tokens[streams * self._length :] if self._rows.stop == streams else tokens[:0])
        self._streams, self._seq_len, self._world = streams, seq_len, world

    def score(self, model: CharLSTM, advance: Advance = _unheard) -> Score:
        """The loss of a model; `advance` is told of the characters that this worker has read, as often as it does."""
        start = zeros = model.zero_state(self._rows.stop - self._rows.start)
        if self._streams > 1:
            _, end = self._read(model, zeros, max(0, self._length - GUESS), advance)
            start = self._follow(model, end)
        rounds = 0
        is_settled = False
        while not is_settled:
            rounds += 1
            loss, end = self._read(model, start, 0, advance)
            begun, start = start, self._follow(model, end)
            off = max(float(mx.nd.max(mx.nd.abs(a - b)).asscalar()) for a, b in zip(begun, start))
            is_settled = rounds == self._streams or self._world.sum([off > TOLERANCE], "unsettled")[0] == 0
        total = self._world.sum([loss + self._read_rest(model, end, advance)], "score")[0]
        return Score(float(total) / self.chars, self.chars, rounds)

    def _read(self, model: CharLSTM, state: LSTMState, start: int, advance: Advance) -> "tuple[float, LSTMState]":
        """This worker's streams from character `start` of each on: the loss, summed, and the states at their ends."""
        losses, pending = 0.0, mx.nd.zeros(1)
        for here in range(start, self._length, self._seq_len):
            stop = min(self._length, here + self._seq_len)
            window = Window.of(runs(self._tokens, self._starts + here, stop - here + 1))
            loss, state = model.loss(*window, state)
            losses, pending = losses + float(pending.asscalar()), loss  # one window late: the engine has work meanwhile
            advance(window.inputs.size)
        return losses + float(pending.asscalar()), state

    def _follow(self, model: CharLSTM, end: LSTMState) -> LSTMState:
        """The states with which this worker's streams begin if all streams end with these."""
        ends = [self._world.gather_rows(array, f"end_{name}") for name, array in end._asdict().items()]
        shifted = [np.concatenate([np.zeros_like(rows[:1]), rows[:-1]])[self._rows] for rows in ends]
        return LSTMState(*(mx.nd.array(rows, ctx=model.ctx) for rows in shifted))

    def _read_rest(self, model: CharLSTM, end: LSTMState, advance: Advance) -> float:
        """The loss of what is behind the last stream; 0 on workers that do not have it."""
        total, state = 0.0, LSTMState(end.h[-1:], end.c[-1:])
        for here in range(0, len(self._rest) - 1, self._seq_len):
            window = Window.of(self._rest[None, here : here + self._seq_len + 1])
            loss, state = model.loss(*window, state)
            total += float(loss.asscalar())
            advance(window.inputs.size)
        return total
