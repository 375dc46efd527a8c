"""Steps of more workers than were measured: what each computes, and what the link makes of the exchange."""

import math
from typing import List, NamedTuple, Sequence

from lstm_dist.experiments.fitting import fit_costs
from lstm_dist.scaling.allreduce_model import Link

WORKERS = tuple(2**k for k in range(11))  # those that are predicted, to 1024


class Compute(NamedTuple):
    """Seconds of a worker's own part of a step, by its streams: base + per_stream * streams, neither below 0."""

    base: float
    per_stream: float

    def seconds(self, streams: int) -> float:
        """Of a worker with so many streams."""
        return self.base + self.per_stream * streams


def fit_compute(streams: Sequence[int], seconds: Sequence[float]) -> Compute:
    """What a smaller share of the batch takes: many small matrices take longer than few large ones, by `base`.

    Args:
        streams: of the worker, in each measurement.
        seconds: of its own part of the step: data, forward, backward and update.

    Raises:
        ValueError: without two different numbers of streams, or when a number is unusable.
    """
    costs = fit_costs({"base": [1] * len(streams), "per_stream": streams}, seconds)
    return Compute(costs["base"], costs["per_stream"])


class Prediction(NamedTuple):
    """A step, if no worker waits for a slower one.

    Attributes:
        workers: of the job.
        compute: s, a worker's own part.
        exchange: s, the allreduce after it.
    """

    workers: int
    compute: float
    exchange: float

    @property
    def step(self) -> float:
        """Seconds of both: the gradient is sent when it is complete."""
        return self.compute + self.exchange


def predict_weak(compute: float, size: float, link: Link) -> List[Prediction]:
    """Where every worker has the same streams, and so takes the same time, whatever their number.

    Args:
        compute: s, a worker's own part of the step.
        size: bytes of the gradient on the wire.
        link: through which it goes.
    """
    return [Prediction(n, compute, link.seconds(n, size)) for n in WORKERS]


def predict_strong(streams: int, compute: Compute, size: float, link: Link) -> List[Prediction]:
    """Where all share the same streams: the largest share decides, and there are no more workers than streams."""
    shares = [(n, math.ceil(streams / n)) for n in WORKERS if n <= streams]
    return [Prediction(n, compute.seconds(share), link.seconds(n, size)) for n, share in shares]
