"""The points of a scaling experiment, that is the jobs to run, and their order."""

import random
from typing import List, NamedTuple, Sequence

MODES = ("weak", "strong")


class Point(NamedTuple):
    """One job.

    Attributes:
        mode: weak (every worker has the streams of a single worker), strong (all workers share them), or perplexity
            (weak, trained until the target perplexity).
        workers: number of workers.
        streams: of the whole job.
        repeat: from 1; each repetition is a separate job.
    """

    mode: str
    workers: int
    streams: int
    repeat: int

    @property
    def name(self) -> str:
        """The name of the point's folder."""
        return f"{self.mode}-n{self.workers:03d}-r{self.repeat}"


def plan(workers: Sequence[int], modes: Sequence[str], streams: int, repeats: int, seed: int = 0) -> List[Point]:
    """Return all points in random order, so that slowdowns of the machine do not bias any of them.

    Args:
        workers: numbers of workers.
        modes: modes of `Point`.
        streams: of a single worker.
        repeats: jobs per point.
        seed: seed of the order.
    """
    points = [
        Point(mode, number, streams if mode == "strong" else streams * number, repeat)
        for mode in modes
        for number in workers
        for repeat in range(1, repeats + 1)
    ]
    random.Random(seed).shuffle(points)  # noqa: S311 - no secret
    return points
