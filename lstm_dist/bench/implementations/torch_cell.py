"""A hand-written PyTorch LSTM with a loop over time and row lookup in W_x; eager, compiled and data-parallel."""

from typing import Any, Dict, List, Tuple

import numpy as np
import torch
from torch import distributed
from torch.nn import Module, Parameter, functional
from torch.nn.parallel import DistributedDataParallel

from lstm_dist.bench.implementation import WorkerAssignment, concat_gates, split_gates
from lstm_dist.bench.implementations.torch_base import TorchImplementation
from lstm_dist.data.batching import Window


class _Cell(Module):
    def __init__(self, named: Dict[str, np.ndarray]) -> None:
        super().__init__()
        for name, kind in (("w_x", "W_x"), ("w_h", "W_h"), ("b", "b_")):
            self.register_parameter(name, Parameter(torch.from_numpy(concat_gates(named, kind))))
        self.w_hy = Parameter(torch.from_numpy(named["W_hy"].copy()))
        self.b_y = Parameter(torch.from_numpy(named["b_y"].copy()))

    def forward(self, inputs: Any, targets: Any, h: Any, c: Any) -> Tuple[Any, Any, Any]:
        H = h.shape[1]
        hs = []
        for x_gates in functional.embedding(inputs, self.w_x).unbind(0):
            z = torch.addmm(self.b, h, self.w_h) + x_gates
            i, f, o = torch.sigmoid(z[:, : 3 * H]).chunk(3, dim=1)
            c = f * c + i * torch.tanh(z[:, 3 * H :])
            h = o * torch.tanh(c)
            hs.append(h)
        logits = torch.addmm(self.b_y, torch.cat(hs), self.w_hy)
        return functional.cross_entropy(logits, targets, reduction="sum"), h, c


class TorchCell(TorchImplementation):
    """The hand-written LSTM in eager mode."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        self._cell = _Cell(assignment.parameters)
        self._module: Any = self._cell
        super().__init__(assignment)

    def parameters(self) -> List[Any]:
        """See `TorchImplementation`."""
        return list(self._cell.parameters())

    def loss(self, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        """See `TorchImplementation`."""
        return self._module(inputs, targets, h, c)

    def gradients(self) -> Dict[str, np.ndarray]:
        """See `Implementation`."""
        cell = self._cell
        return {
            **split_gates(cell.w_x.grad.numpy(), "W_x"),
            **split_gates(cell.w_h.grad.numpy(), "W_h"),
            **split_gates(cell.b.grad.numpy(), "b_"),
            "W_hy": cell.w_hy.grad.numpy(),
            "b_y": cell.b_y.grad.numpy(),
        }


class TorchCompiled(TorchCell):
    """The hand-written LSTM with torch.compile."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        super().__init__(assignment)
        self._module = torch.compile(self._cell)


class TorchDDP(TorchCell):
    """The hand-written LSTM with DistributedDataParallel, which overlaps communication with the backward pass."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        super().__init__(assignment)
        store = distributed.FileStore(str(assignment.folder / "torch"), assignment.case.workers)
        distributed.init_process_group("gloo", store=store, rank=assignment.rank, world_size=assignment.case.workers)
        self._module = DistributedDataParallel(self._cell, gradient_as_bucket_view=True)
        self._workers = assignment.case.workers

    def loss(self, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        """Scale the loss by N, because DistributedDataParallel averages the gradients and their sum is needed."""
        loss, h, c = super().loss(inputs, targets, h, c)
        return self._workers * loss, h, c

    def backward(self, window: Window) -> Any:
        """See `Implementation`."""
        return super().backward(window) / self._workers
