"""A reference LSTM in float64 numpy, slow and simple, that shares no code with the program.

It follows the formulas of the D2L chapter, with 14 parameters and one-hot inputs; gradients are central differences.
"""

from typing import Dict, Tuple

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def window_loss(
    p: Dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, h: np.ndarray, c: np.ndarray
) -> Tuple[float, np.ndarray, np.ndarray]:
    """Return the summed cross-entropy of one (B, T) window from state (h, c), and the next state, for any layers."""
    loss, layers = 0.0, sum(name.startswith("W_hi") for name in p)
    hs, cs = np.split(h, layers, axis=1), np.split(c, layers, axis=1)
    for t in range(inputs.shape[1]):
        x = np.eye(len(p["W_xi"]))[inputs[:, t]]
        for layer in range(layers):
            s, h, c = "" if layer == 0 else f"_{layer + 1}", hs[layer], cs[layer]
            i = sigmoid(x @ p[f"W_xi{s}"] + h @ p[f"W_hi{s}"] + p[f"b_i{s}"])
            f = sigmoid(x @ p[f"W_xf{s}"] + h @ p[f"W_hf{s}"] + p[f"b_f{s}"])
            o = sigmoid(x @ p[f"W_xo{s}"] + h @ p[f"W_ho{s}"] + p[f"b_o{s}"])
            c_tilde = np.tanh(x @ p[f"W_xc{s}"] + h @ p[f"W_hc{s}"] + p[f"b_c{s}"])
            cs[layer] = f * c + i * c_tilde
            x = hs[layer] = o * np.tanh(cs[layer])
        logits = x @ p["W_hy"] + p["b_y"]
        for row, target in enumerate(targets[:, t]):
            loss += np.log(np.exp(logits[row]).sum()) - logits[row, target]
    return loss, np.concatenate(hs, axis=1), np.concatenate(cs, axis=1)


def finite_differences(
    p: Dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, h: np.ndarray, c: np.ndarray, eps: float = 1e-5
) -> Dict[str, np.ndarray]:
    """Return dL/dp for every element of every parameter by central differences; the error is of order eps squared."""
    gradients = {}
    for name, value in p.items():
        gradient = np.zeros_like(value)
        for index in np.ndindex(*value.shape):
            original = value[index]
            value[index] = original + eps
            above = window_loss(p, inputs, targets, h, c)[0]
            value[index] = original - eps
            below = window_loss(p, inputs, targets, h, c)[0]
            value[index] = original
            gradient[index] = (above - below) / (2 * eps)
        gradients[name] = gradient
    return gradients
