"""gluon.rnn.LSTM, hybridized, on one-hot input: MXNet's fused operator."""

from typing import Any, Dict

import mxnet as mx
import numpy as np
from mxnet import autograd, nd
from mxnet.gluon import HybridBlock, Trainer, loss, nn, rnn
from mxnet.gluon.utils import clip_global_norm

from lstm_dist.bench.case import Case
from lstm_dist.bench.implementation import (
    LEARNING_RATE,
    MAX_NORM,
    Implementation,
    WorkerAssignment,
    stack_gates,
    unstack_gates,
)
from lstm_dist.data.batching import Window


class _Network(HybridBlock):
    def __init__(self, case: Case) -> None:
        super().__init__()
        self._V = case.vocab_size
        with self.name_scope():
            self.lstm = rnn.LSTM(case.hidden_size, input_size=case.vocab_size)
            self.head = nn.Dense(case.vocab_size, in_units=case.hidden_size, flatten=False)
            self.loss = loss.SoftmaxCrossEntropyLoss()

    def hybrid_forward(self, F: Any, inputs: Any, targets: Any, h: Any, c: Any) -> Any:
        outputs, (h, c) = self.lstm(F.one_hot(inputs, self._V), [h, c])
        logits = F.reshape(self.head(outputs), shape=(-1, self._V))
        return F.sum(self.loss(logits, F.reshape(targets, shape=(-1,)))), h, c


class Gluon(Implementation):
    """The standard MXNet implementation."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        named = assignment.parameters
        self._network = _Network(assignment.case)
        self._network.initialize()
        lstm, head = self._network.lstm, self._network.head
        lstm.l0_i2h_weight.set_data(nd.array(stack_gates(named, "W_x")))
        lstm.l0_h2h_weight.set_data(nd.array(stack_gates(named, "W_h")))
        lstm.l0_i2h_bias.set_data(nd.array(stack_gates(named, "b_")))
        lstm.l0_h2h_bias.set_data(nd.zeros(4 * assignment.case.hidden_size))
        # Train only one of gluon's two redundant biases; training both would double the step of their sum.
        lstm.l0_h2h_bias.grad_req = "null"
        head.weight.set_data(nd.array(named["W_hy"].T))
        head.bias.set_data(nd.array(named["b_y"]))
        self._network.hybridize(static_alloc=True, static_shape=True)
        self._trainer = Trainer(self._network.collect_params(), "sgd", {"learning_rate": LEARNING_RATE}, kvstore=None)
        self._h = self._c = nd.zeros((1, assignment.streams, assignment.case.hidden_size))

    def backward(self, window: Window) -> Any:
        """See `Implementation`."""
        inputs, targets = nd.array(window.inputs.T), nd.array(window.targets.T)
        with autograd.record():
            total, self._h, self._c = self._network(inputs, targets, self._h.detach(), self._c.detach())
        total.backward()
        return total

    def _trained_parameters(self) -> Dict[str, Any]:
        return {name: p for name, p in self._network.collect_params().items() if p.grad_req != "null"}

    def update(self) -> None:
        """Clip with gluon.utils without a device-to-host copy, and update with the SGD of gluon.Trainer."""
        clip_global_norm([p.grad() for p in self._trained_parameters().values()], MAX_NORM, check_isfinite=False)
        self._trainer.step(1)

    def gradients(self) -> Dict[str, np.ndarray]:
        """See `Implementation`."""
        lstm, head = self._network.lstm, self._network.head
        return {
            **unstack_gates(lstm.l0_i2h_weight.grad().asnumpy(), "W_x"),
            **unstack_gates(lstm.l0_h2h_weight.grad().asnumpy(), "W_h"),
            **unstack_gates(lstm.l0_i2h_bias.grad().asnumpy(), "b_"),
            "W_hy": head.weight.grad().asnumpy().T,
            "b_y": head.bias.grad().asnumpy(),
        }

    def wait(self) -> None:
        """See `Implementation`."""
        mx.nd.waitall()
