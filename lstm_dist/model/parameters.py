"""The model's parameters: the document's names and shapes, what they need, and their start; without MXNet.

A command that only has to know their sizes thus runs where MXNet cannot be loaded: a login node without a GPU's driver.
"""

import math
import re
from typing import Dict, Iterable, List, Tuple

import numpy as np

from lstm_dist.model.lstm import GATES
from lstm_dist.rng import Purpose, generator

DOCUMENTS = 14  # parameters; those of further layers come behind them
INITIAL_STD = 0.01  # the document's N(0, 0.01) weights; biases start at zero
VOTES = 2  # numbers behind the gradients, by which the workers agree on what is to be done after a step


def suffixes(layers: int) -> List[str]:
    """What ends the names of each layer's parameters: nothing for the document's, "_2" for those of the one above."""
    return ["", *(f"_{number}" for number in range(2, layers + 1))]


def layers_of(names: Iterable[str]) -> int:
    """How many layers parameters of these names make."""
    return sum(re.fullmatch(r"W_hi(_\d+)?", name) is not None for name in names)


def document_shapes(vocab_size: int, hidden_size: int, layers: int = 1) -> Dict[str, Tuple[int, ...]]:
    """The document's 14 parameters, names and shapes, in its order: W_xi (V,H), W_hi (H,H), b_i (H,), ..., b_y (V,).

    Behind them come those of the layers above, 12 each: W_xi_2 (H,H), W_hi_2 (H,H), b_i_2 (H,), ...
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
    """Of all together."""
    return sum(math.prod(shape) for shape in document_shapes(vocab_size, hidden_size, layers).values())


def memory_needed(vocab_size: int, hidden_size: int, layers: int, streams: int, seq_len: int) -> int:
    """Bytes that a worker cannot do without, a lower bound: weights and gradients, and what the backward pass needs.

    The latter are, for each of streams * seq_len characters, six vectors of every layer's cell, its gates' derivatives
    and inputs (4H each), and the logits with their probabilities.
    """
    parameters = number_of_parameters(vocab_size, hidden_size, layers)
    return 4 * (2 * parameters + streams * seq_len * (14 * hidden_size * layers + 2 * vocab_size))


def initial_parameters(vocab_size: int, hidden_size: int, seed: int, layers: int = 1) -> Dict[str, np.ndarray]:
    """The document's start: weights from N(0, 0.01), biases zero; a function of the seed and the sizes alone.

    From there a second layer would hand on next to nothing, and only b_y would learn for hundreds of epochs: layers
    above the first begin at N(0, 1 / sqrt(H)), which neither shrinks nor swells what goes through (LeCun et al. 1998).
    """
    parameters = {}
    for number, (name, shape) in enumerate(document_shapes(vocab_size, hidden_size, layers).items()):
        if name.startswith("W"):
            std = INITIAL_STD if number < DOCUMENTS else hidden_size**-0.5
            draw = generator(seed, Purpose.INITIAL_WEIGHTS, number).standard_normal(shape)
            parameters[name] = (std * draw).astype(np.float32)
        else:
            parameters[name] = np.zeros(shape, np.float32)
    return parameters
