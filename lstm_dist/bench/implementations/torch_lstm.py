"""torch.nn.LSTM on one-hot input."""

from typing import Any, Dict, List

import numpy as np
import torch
from torch.nn import functional

from lstm_dist.bench.implementation import WorkerAssignment, stack_gates, unstack_gates
from lstm_dist.bench.implementations.torch_base import TorchImplementation


class TorchLSTM(TorchImplementation):
    """The standard PyTorch implementation."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        case, named = assignment.case, assignment.parameters
        self._V = case.vocab_size
        self._lstm = torch.nn.LSTM(case.vocab_size, case.hidden_size)
        self._head = torch.nn.Linear(case.hidden_size, case.vocab_size)
        # Train only one of torch's two redundant biases; training both would double the step of their sum.
        self._lstm.bias_hh_l0.requires_grad_(False)
        with torch.no_grad():
            self._lstm.weight_ih_l0.copy_(torch.from_numpy(stack_gates(named, "W_x")))
            self._lstm.weight_hh_l0.copy_(torch.from_numpy(stack_gates(named, "W_h")))
            self._lstm.bias_ih_l0.copy_(torch.from_numpy(stack_gates(named, "b_")))
            self._lstm.bias_hh_l0.zero_()
            self._head.weight.copy_(torch.from_numpy(named["W_hy"].T))
            self._head.bias.copy_(torch.from_numpy(named["b_y"]))
        super().__init__(assignment)

    def parameters(self) -> List[Any]:
        """See `TorchImplementation`."""
        return [p for p in [*self._lstm.parameters(), *self._head.parameters()] if p.requires_grad]

    def loss(self, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        """See `TorchImplementation`."""
        one_hot = functional.one_hot(inputs, self._V).float()
        outputs, (h, c) = self._lstm(one_hot, (h[None], c[None]))
        logits = self._head(outputs).reshape(-1, self._V)
        return functional.cross_entropy(logits, targets, reduction="sum"), h[0], c[0]

    def gradients(self) -> Dict[str, np.ndarray]:
        """See `Implementation`."""
        return {
            **unstack_gates(self._lstm.weight_ih_l0.grad.numpy(), "W_x"),
            **unstack_gates(self._lstm.weight_hh_l0.grad.numpy(), "W_h"),
            **unstack_gates(self._lstm.bias_ih_l0.grad.numpy(), "b_"),
            "W_hy": self._head.weight.grad.numpy().T,
            "b_y": self._head.bias.grad.numpy(),
        }
