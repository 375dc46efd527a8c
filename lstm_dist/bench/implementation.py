"""What every contestant does: the same training step of the same model, from the same weights on the same windows."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, NamedTuple

import numpy as np

from lstm_dist.bench.case import Case
from lstm_dist.data.batching import Window
from lstm_dist.model.lstm import GATES

LEARNING_RATE, MAX_NORM = 0.1, 5.0  # the document's
_STACKED = ("i", "f", "c", "o")  # the order of the gates in the fused weights of gluon.rnn.LSTM and torch.nn.LSTM


class Seat(NamedTuple):
    """What one process of a team is given.

    Attributes:
        case: of the whole team.
        streams: of this process.
        rank: of this process.
        parameters: the 14 initial ones under the document's names.
        folder: of the team, empty but for the contest's own files.
    """

    case: Case
    streams: int
    rank: int
    parameters: Dict[str, np.ndarray]
    folder: Path


class Contestant(ABC):
    """One way to compute the step, with parameters and state of its own."""

    @abstractmethod
    def __init__(self, seat: Seat) -> None: ...

    @abstractmethod
    def backward(self, window: Window) -> Any:
        """Forward and backward through the window, from the carried state; the gradients summed over all workers.

        Returns:
            The loss, summed over this process's characters, in nats; reading it may wait for the computation.
        """

    @abstractmethod
    def update(self) -> None:
        """Clip the gradients by their global norm and take the SGD step."""

    @abstractmethod
    def gradients(self) -> Dict[str, np.ndarray]:
        """Those of the last `backward`, under the document's names."""

    @abstractmethod
    def wait(self) -> None:
        """Return when everything asked for so far has been computed."""

    def step(self, window: Window) -> None:
        """One training step."""
        self.backward(window)
        self.update()

    def close(self) -> None:  # noqa: B027 - few have anything to leave
        """Leave the other workers in an orderly way."""


def stacked(named: Dict[str, np.ndarray], kind: str) -> np.ndarray:
    """The four blocks of `kind`, "W_x", "W_h" or "b_", transposed and stacked as gluon and torch keep them."""
    return np.concatenate([named[f"{kind}{gate}"].T for gate in _STACKED])


def unstacked(blocks: np.ndarray, kind: str) -> Dict[str, np.ndarray]:
    """The reverse of `stacked`."""
    return {f"{kind}{gate}": block.T for gate, block in zip(_STACKED, np.split(blocks, len(_STACKED)))}


def side_by_side(named: Dict[str, np.ndarray], kind: str) -> np.ndarray:
    """The four blocks of `kind` as columns, in the document's order."""
    return np.concatenate([named[f"{kind}{gate}"] for gate in GATES], axis=-1)


def apart(columns: np.ndarray, kind: str) -> Dict[str, np.ndarray]:
    """The reverse of `side_by_side`."""
    return {f"{kind}{gate}": block for gate, block in zip(GATES, np.split(columns, len(GATES), axis=-1))}
