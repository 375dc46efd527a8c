"""Common parts of the PyTorch implementations: carried state, torch's own clipping and its fused SGD."""

from abc import abstractmethod
from typing import Any, List

import torch

from lstm_dist.bench.implementation import LEARNING_RATE, MAX_NORM, Implementation, WorkerAssignment
from lstm_dist.data.batching import Window


class TorchImplementation(Implementation):
    """A PyTorch implementation, whose subclasses define the parameters and the loss for autograd."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        torch.set_num_threads(assignment.case.threads)
        self._h = self._c = torch.zeros(assignment.streams, assignment.case.hidden_size)
        self._optimizer = torch.optim.SGD(self.parameters(), lr=LEARNING_RATE, fused=True)

    @abstractmethod
    def parameters(self) -> List[Any]:
        """Return the trained parameters."""

    @abstractmethod
    def loss(self, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        """Return the loss summed over (T, B) inputs and (T * B,) targets, and the final state."""

    def backward(self, window: Window) -> Any:
        """See `Implementation`."""
        inputs = torch.from_numpy(window.inputs.T).long().contiguous()
        targets = torch.from_numpy(window.targets.T).long().reshape(-1)
        self._optimizer.zero_grad(set_to_none=True)
        loss, h, c = self.loss(inputs, targets, self._h, self._c)
        loss.backward()
        self._h, self._c = h.detach(), c.detach()
        return loss.detach()

    def update(self) -> None:
        """Clip with torch.nn.utils and update with the fused SGD of torch.optim."""
        torch.nn.utils.clip_grad_norm_(self.parameters(), MAX_NORM, error_if_nonfinite=False)
        self._optimizer.step()

    def wait(self) -> None:
        """Do nothing, as torch is synchronous on the CPU."""
