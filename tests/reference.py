"""The LSTM once more, in float64 numpy, slow and obvious: the witness that shares no line with the product.

Written from the document's formulas with its 14 parameters and one-hot inputs; gradients come from central differences.
"""

from typing import Dict, Tuple

import numpy as np


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def window_loss(
    p: Dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, h: np.ndarray, c: np.ndarray
) -> Tuple[float, np.ndarray, np.ndarray]:
    """Summed cross-entropy of one (B, T) window from state (h, c), and the state after it."""
    loss = 0.0
    for t in range(inputs.shape[1]):
        x = np.eye(len(p["W_xi"]))[inputs[:, t]]
        i = sigmoid(x @ p["W_xi"] + h @ p["W_hi"] + p["b_i"])
        f = sigmoid(x @ p["W_xf"] + h @ p["W_hf"] + p["b_f"])
        o = sigmoid(x @ p["W_xo"] + h @ p["W_ho"] + p["b_o"])
        c_tilde = np.tanh(x @ p["W_xc"] + h @ p["W_hc"] + p["b_c"])
        c = f * c + i * c_tilde
        h = o * np.tanh(c)
        logits = h @ p["W_hy"] + p["b_y"]
        for row, target in enumerate(targets[:, t]):
            loss += np.log(np.exp(logits[row]).sum()) - logits[row, target]
    return loss, h, c


def finite_differences(
    p: Dict[str, np.ndarray], inputs: np.ndarray, targets: np.ndarray, h: np.ndarray, c: np.ndarray, eps: float = 1e-5
) -> Dict[str, np.ndarray]:
    """dL/dp for every element of every parameter, by central differences; the error is of order eps squared."""
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
