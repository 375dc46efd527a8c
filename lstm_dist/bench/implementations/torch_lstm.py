"""torch.nn.LSTM on one-hot input."""

from typing import Any, Dict, List

import numpy as np
import torch
from torch.nn import functional

from lstm_dist.bench.implementation import Seat, stacked, unstacked
from lstm_dist.bench.implementations.torch_base import TorchContestant


class TorchLSTM(TorchContestant):
    """The standard PyTorch implementation."""

    def __init__(self, seat: Seat) -> None:
        case, named = seat.case, seat.parameters
        self._V = case.vocab_size
        self._lstm = torch.nn.LSTM(case.vocab_size, case.hidden_size)
        self._head = torch.nn.Linear(case.hidden_size, case.vocab_size)
        # Train only one of torch's two redundant biases; training both would double the step of their sum.
        self._lstm.bias_hh_l0.requires_grad_(False)
        with torch.no_grad():
            self._lstm.weight_ih_l0.copy_(torch.from_numpy(stacked(named, "W_x")))
            self._lstm.weight_hh_l0.copy_(torch.from_numpy(stacked(named, "W_h")))
            self._lstm.bias_ih_l0.copy_(torch.from_numpy(stacked(named, "b_")))
            self._lstm.bias_hh_l0.zero_()
            self._head.weight.copy_(torch.from_numpy(named["W_hy"].T))
            self._head.bias.copy_(torch.from_numpy(named["b_y"]))
        super().__init__(seat)

    def parameters(self) -> List[Any]:
        """See TorchContestant."""
        return [p for p in [*self._lstm.parameters(), *self._head.parameters()] if p.requires_grad]

    def loss(self, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        """See TorchContestant."""
        one_hot = functional.one_hot(inputs, self._V).float()
        outputs, (h, c) = self._lstm(one_hot, (h[None], c[None]))
        logits = self._head(outputs).reshape(-1, self._V)
        return functional.cross_entropy(logits, targets, reduction="sum"), h[0], c[0]

    def gradients(self) -> Dict[str, np.ndarray]:
        """See Contestant."""
        return {
            **unstacked(self._lstm.weight_ih_l0.grad.numpy(), "W_x"),
            **unstacked(self._lstm.weight_hh_l0.grad.numpy(), "W_h"),
            **unstacked(self._lstm.bias_ih_l0.grad.numpy(), "b_"),
            "W_hy": self._head.weight.grad.numpy().T,
            "b_y": self._head.bias.grad.numpy(),
        }
