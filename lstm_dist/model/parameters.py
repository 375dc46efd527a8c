"""The model's parameters: names and shapes of the D2L chapter, memory requirements and initial values.

This module does not import MXNet, so that commands which only need sizes also run where MXNet cannot be loaded, such
as a login node without a GPU driver.
"""

import math
import re
from typing import Dict, Iterable, List, Tuple

import numpy as np

from lstm_dist.model.lstm import GATES
from lstm_dist.rng import Purpose, generator

D2L_PARAMETERS = 14  # parameters of the D2L chapter; those of further layers follow
INITIAL_STD = 0.01  # weights from N(0, 0.01) as in the D2L chapter; biases start at zero


def suffixes(layers: int) -> List[str]:
    """Return the suffix of each layer's parameter names: "" for the first layer, "_2" for the second, and so on."""
    return ["", *(f"_{number}" for number in range(2, layers + 1))]


def layers_of(names: Iterable[str]) -> int:
    """Return the number of layers of a model with these parameter names."""
    return sum(re.fullmatch(r"W_hi(_\d+)?", name) is not None for name in names)


def parameter_shapes(vocab_size: int, hidden_size: int, layers: int = 1) -> Dict[str, Tuple[int, ...]]:
    """Return names and shapes of all parameters.

    First the 14 of the D2L chapter in its order, W_xi (V,H), W_hi (H,H), b_i (H,), ..., b_y (V,); then 12 for each
    upper layer, W_xi_2 (H,H), W_hi_2 (H,H), b_i_2 (H,), ...
    """
    V, H = vocab_size, hidden_size
    shapes: Dict[str, Tuple[int, ...]] = {}
    for suffix in suffixes(layers):
        for gate in GATES:
            shapes[f"W_x{gate}{suffix}"] = (H if suffix else V, H)
            shapes[f"W_h{gate}{suffix}"] = (H, H)
            shapes[f"b_{gate}{suffix}"] = (H,)
        if not suffix:
            shapes.update(W_hy=(H, V), b_y=(V,))
    return shapes


def number_of_parameters(vocab_size: int, hidden_size: int, layers: int = 1) -> int:
    """Return the total number of parameters."""
    return sum(math.prod(shape) for shape in parameter_shapes(vocab_size, hidden_size, layers).values())


def memory_needed(
    vocab_size: int, hidden_size: int, layers: int, streams: int, seq_len: int, on_gpu: bool = False
) -> int:
    """Return a lower bound on a worker's memory in bytes: weights, gradients and values for the backward pass.

    On a CPU these values are, for each of streams * seq_len characters, six vectors of every layer's cell, its gates'
    derivatives and inputs (4H each), and the logits with their probabilities. On a GPU they are h, c and gates (4H) of
    every layer, one derivative of h, and the logits.
    """
    parameters = number_of_parameters(vocab_size, hidden_size, layers)
    values = (6 * layers + 1) * hidden_size + vocab_size if on_gpu else 14 * hidden_size * layers + 2 * vocab_size
    return 4 * (2 * parameters + streams * seq_len * values)


def initial_parameters(vocab_size: int, hidden_size: int, seed: int, layers: int = 1) -> Dict[str, np.ndarray]:
    """Return the D2L chapter's initial values, weights from N(0, 0.01) and zero biases, from seed and sizes alone.

    Upper layers start from N(0, 1 / sqrt(H)), which preserves the scale of their inputs (LeCun et al. 1998): with the
    smaller weights a second layer would output almost nothing, and only b_y would learn for hundreds of epochs.
    """
    parameters = {}
    for number, (name, shape) in enumerate(parameter_shapes(vocab_size, hidden_size, layers).items()):
        if name.startswith("W"):
            std = INITIAL_STD if number < D2L_PARAMETERS else hidden_size**-0.5
            draw = generator(seed, Purpose.INITIAL_WEIGHTS, number).standard_normal(shape)
            parameters[name] = (std * draw).astype(np.float32)
        else:
            parameters[name] = np.zeros(shape, np.float32)
    return parameters
