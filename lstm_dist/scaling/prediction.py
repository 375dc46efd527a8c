"""Predict the step time for more workers than were measured, from a worker's compute and the fitted link."""

import math
from typing import List, Mapping, NamedTuple, Sequence

from lstm_dist.experiments.fitting import fit_costs
from lstm_dist.scaling.host_links import HostLinks

WORKERS = tuple(2**k for k in range(11))  # predicted numbers of workers


class ComputeCost(NamedTuple):
    """Seconds of a worker's own part of a step: base + per_stream * streams, both >= 0."""

    base: float
    per_stream: float

    def seconds(self, streams: int) -> float:
        """Return the seconds of a worker with this many streams."""
        return self.base + self.per_stream * streams


def fit_compute(streams: Sequence[int], seconds: Sequence[float]) -> ComputeCost:
    """Fit the time of a worker's share of the batch; `base` is the part that does not shrink with the streams.

    Args:
        streams: streams per worker of each measurement.
        seconds: seconds of the worker's own part of the step: data, forward, backward and update.

    Raises:
        ValueError: without two different numbers of streams, or if a number is invalid.
    """
    costs = fit_costs({"base": [1] * len(streams), "per_stream": streams}, seconds)
    return ComputeCost(costs["base"], costs["per_stream"])


class Prediction(NamedTuple):
    """A predicted step in which no worker waits for a slower one.

    Attributes:
        workers: number of workers.
        compute: seconds of a worker's own part.
        communication: seconds of the allreduce that follows.
    """

    workers: int
    compute: float
    communication: float

    @property
    def step(self) -> float:
        """Return the seconds of both, without overlap, as the gradient is only sent when it is complete."""
        return self.compute + self.communication


def predict_weak(compute: float, sizes: Mapping[int, float], link: HostLinks) -> List[Prediction]:
    """Predict weak scaling, where every worker has the same streams and thus the same compute time at any N.

    Args:
        compute: seconds of a worker's own part of the step.
        sizes: bytes of the communicated gradient by number of workers.
        link: fitted links of the communication path.
    """
    return [Prediction(n, compute, link.seconds(n, sizes[n])) for n in WORKERS]


def predict_strong(streams: int, compute: ComputeCost, sizes: Mapping[int, float], link: HostLinks) -> List[Prediction]:
    """Predict strong scaling: the largest share of the streams sets the time, and N is at most `streams`."""
    shares = [(n, math.ceil(streams / n)) for n in WORKERS if n <= streams]
    return [Prediction(n, compute.seconds(share), link.seconds(n, sizes[n])) for n, share in shares]
