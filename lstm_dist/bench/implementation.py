"""Interface of all implementations: the same training step, model, initial parameters and windows."""

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Dict, NamedTuple

import numpy as np

from lstm_dist.bench.case import Case
from lstm_dist.data.batching import Window
from lstm_dist.model.lstm import GATES

LEARNING_RATE, MAX_NORM = 0.1, 5.0  # the D2L chapter's
_FUSED_GATES = ("i", "f", "c", "o")  # the order of the gates in the fused weights of gluon.rnn.LSTM and torch.nn.LSTM


class WorkerAssignment(NamedTuple):
    """The share of one worker process in a benchmark case.

    Attributes:
        case: the sizes of all workers together.
        streams: number of streams of this worker.
        rank: rank of this worker.
        parameters: the 14 initial parameters under the D2L chapter's names.
        folder: folder of the worker pool; contains only the benchmark's own files.
    """

    case: Case
    streams: int
    rank: int
    parameters: Dict[str, np.ndarray]
    folder: Path


class Implementation(ABC):
    """One implementation of the training step, with its own parameters and state."""

    @abstractmethod
    def __init__(self, assignment: WorkerAssignment) -> None: ...

    @abstractmethod
    def backward(self, window: Window) -> Any:
        """Run forward and backward through the window, from the carried state; sum the gradients over all workers.

        Returns:
            The loss in nats, summed over this worker's characters; reading it may block until it is computed.
        """

    @abstractmethod
    def update(self) -> None:
        """Clip the gradients by their global norm and take the SGD step."""

    @abstractmethod
    def gradients(self) -> Dict[str, np.ndarray]:
        """Return the gradients of the last `backward` under the D2L chapter's names."""

    @abstractmethod
    def wait(self) -> None:
        """Block until all pending computation is done."""

    def step(self, window: Window) -> None:
        """Run one training step."""
        self.backward(window)
        self.update()

    def close(self) -> None:  # noqa: B027 - most implementations have nothing to shut down
        """Shut down in coordination with the other workers."""


def stack_gates(named: Dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Return the four blocks of `kind` ("W_x", "W_h" or "b_"), transposed and stacked as rows in the fused order."""
    return np.concatenate([named[f"{kind}{gate}"].T for gate in _FUSED_GATES])


def unstack_gates(rows: np.ndarray, kind: str) -> Dict[str, np.ndarray]:
    """Invert `stack_gates`."""
    return {f"{kind}{gate}": block.T for gate, block in zip(_FUSED_GATES, np.split(rows, len(_FUSED_GATES)))}


def concat_gates(named: Dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Return the four blocks of `kind`, concatenated as columns in the order of GATES."""
    return np.concatenate([named[f"{kind}{gate}"] for gate in GATES], axis=-1)


def split_gates(columns: np.ndarray, kind: str) -> Dict[str, np.ndarray]:
    """Invert `concat_gates`."""
    return {f"{kind}{gate}": block for gate, block in zip(GATES, np.split(columns, len(GATES), axis=-1))}
