"""The points of a scaling experiment: the jobs that there are to run, and their order."""

import random
from typing import List, NamedTuple, Sequence

MODES = ("weak", "strong")


class Point(NamedTuple):
    """One job.

    Attributes:
        mode: weak (every worker has the streams that one has alone), strong (all have them together), or perplexity
            (weak, and trained until it is good enough).
        workers: their number.
        streams: of the whole job.
        repeat: from 1; repetitions are jobs of their own.
    """

    mode: str
    workers: int
    streams: int
    repeat: int

    @property
    def name(self) -> str:
        """By which its folder is called."""
        return f"{self.mode}-n{self.workers:03d}-r{self.repeat}"


def plan(workers: Sequence[int], modes: Sequence[str], streams: int, repeats: int, seed: int = 0) -> List[Point]:
    """All points in a random order, so that a machine which becomes slower or busy is nobody's disadvantage.

    Args:
        workers: the numbers of them.
        modes: of `Point`.
        streams: of one worker alone.
        repeats: of each.
        seed: of the order.
    """
    points = [
        Point(mode, number, streams if mode == "strong" else streams * number, repeat)
        for mode in modes
        for number in workers
        for repeat in range(1, repeats + 1)
    ]
    random.Random(seed).shuffle(points)  # noqa: S311 - no secret
    return points
