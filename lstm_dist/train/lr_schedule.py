"""The learning rate schedule: a function of the step number alone, so that a resumed run needs no other state."""

import math
from typing import NamedTuple


class LearningRate(NamedTuple):
    """A learning rate schedule.

    constant    does not change
    step        is multiplied by `factor` after every `every` steps
    cosine      decays along half a period to `factor` times the peak after `every` steps, then stays constant
                (Loshchilov and Hutter 2017)

    Attributes:
        peak: the step size before the decay.
        kind: "constant", "step" or "cosine".
        warm_up: steps of linear increase to the peak; the decay begins after them.
        every: steps, see above.
        factor: see above.
    """

    peak: float
    kind: str = "constant"
    warm_up: int = 0
    every: int = 1
    factor: float = 0.0

    def at(self, step: int) -> float:
        """Return the step size of a step, counted from 0."""
        if step < self.warm_up:
            return self.peak * (step + 1) / self.warm_up
        done = step - self.warm_up
        if self.kind == "step":
            return self.peak * self.factor ** (done // self.every)
        if self.kind == "cosine":
            fall = (1 + math.cos(math.pi * min(1.0, done / self.every))) / 2
            return self.peak * (self.factor + (1 - self.factor) * fall)
        return self.peak
