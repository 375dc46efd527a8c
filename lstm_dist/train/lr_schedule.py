"""The step size of every step: a function of its number alone, so that a run that goes on knows where it is."""

import math
from typing import NamedTuple


class LearningRate(NamedTuple):
    """How the step size changes.

    constant    stays
    step        is multiplied by `factor` after every `every` steps
    cosine      falls along half a period, to `factor` times itself after `every` steps, and stays there
                (Loshchilov and Hutter 2017)

    Attributes:
        peak: the step size before it falls.
        kind: one of these three.
        warm_up: steps in which it rises to that, along a line; the fall begins after them.
        every: steps, see above.
        factor: see above.
    """

    peak: float
    kind: str = "constant"
    warm_up: int = 0
    every: int = 1
    factor: float = 0.0

    def at(self, step: int) -> float:
        """The step size of a step, counted from 0."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = step - self.warm_up
        if self.kind == "step":
            return self.peak * self.factor ** (done // self.every)
        if self.kind == "cosine":
            fall = (1 + math.cos(math.pi * min(1.0, done / self.every))) / 2
            return self.peak * (self.factor + (1 - self.factor) * fall)
        return self.peak
