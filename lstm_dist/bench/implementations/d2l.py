"""The D2L chapter's formulation: one-hot products, a Python loop over time, autograd, SGD per parameter."""

from typing import Any, Dict, List

import mxnet as mx
import numpy as np
from mxnet import autograd, gluon, nd

from lstm_dist.bench.implementation import LEARNING_RATE, MAX_NORM, Implementation, WorkerAssignment
from lstm_dist.data.batching import Window


class D2LChapter(Implementation):
    """The implementation of the D2L chapter."""

    def __init__(self, assignment: WorkerAssignment) -> None:
        self._V = assignment.case.vocab_size
        self._parameters = {name: nd.array(value) for name, value in assignment.parameters.items()}
        for parameter in self._parameters.values():
            parameter.attach_grad()
        self._h = self._c = nd.zeros((assignment.streams, assignment.case.hidden_size))
        self._loss = gluon.loss.SoftmaxCrossEntropyLoss()

    def _forward(self, inputs: List[Any]) -> List[Any]:
        p, h, c, outputs = self._parameters, self._h, self._c, []
        for X in inputs:
            i = nd.sigmoid(nd.dot(X, p["W_xi"]) + nd.dot(h, p["W_hi"]) + p["b_i"])
            f = nd.sigmoid(nd.dot(X, p["W_xf"]) + nd.dot(h, p["W_hf"]) + p["b_f"])
            o = nd.sigmoid(nd.dot(X, p["W_xo"]) + nd.dot(h, p["W_ho"]) + p["b_o"])
            c_tilda = nd.tanh(nd.dot(X, p["W_xc"]) + nd.dot(h, p["W_hc"]) + p["b_c"])
            c = f * c + i * c_tilda
            h = o * nd.tanh(c)
            outputs.append(nd.dot(h, p["W_hy"]) + p["b_y"])
        self._h, self._c = h, c
        return outputs

    def backward(self, window: Window) -> Any:
        """See `Implementation`."""
        self._h, self._c = self._h.detach(), self._c.detach()
        with autograd.record():
            outputs = self._forward([nd.one_hot(x, self._V) for x in nd.array(window.inputs.T)])
            targets = nd.array(window.targets).T.reshape((-1,))
            loss = self._loss(nd.concat(*outputs, dim=0), targets).sum()
        loss.backward()
        return loss

    def update(self) -> None:
        """Clip and update with the D2L chapter's grad_clipping and sgd."""
        norm = nd.array([0])
        for parameter in self._parameters.values():
            norm += (parameter.grad**2).sum()
        norm = norm.sqrt().asscalar()
        if norm > MAX_NORM:
            for parameter in self._parameters.values():
                parameter.grad[:] *= MAX_NORM / norm
        for parameter in self._parameters.values():
            parameter[:] = parameter - LEARNING_RATE * parameter.grad

    def gradients(self) -> Dict[str, np.ndarray]:
        """See `Implementation`."""
        return {name: parameter.grad.asnumpy() for name, parameter in self._parameters.items()}

    def wait(self) -> None:
        """See `Implementation`."""
        mx.nd.waitall()
