"""The points of a scaling experiment, which are the training jobs to run, and their order."""

import random
from typing import List, NamedTuple, Sequence, Tuple

from lstm_dist.scaling.variation import Variation

MODES = ("weak", "strong")


class Point(NamedTuple):
    """A training job to run.

    Attributes:
        mode: weak (every worker has the streams of a single worker), strong (all workers share them), or perplexity
            (weak, trained until the target perplexity).
        workers: number of workers.
        streams: number of streams of the whole job.
        repeat: number of the repetition, from 1; each repetition is a separate job.
        varied: settings in which the job differs from its experiment.
    """

    mode: str
    workers: int
    streams: int
    repeat: int
    varied: Variation = Variation()

    @property
    def name(self) -> str:
        """Return the name of the point's folder."""
        return f"{self.mode}-n{self.workers:03d}{self.varied.suffix}-r{self.repeat}"


def plan_points(
    crews: Sequence[Tuple[int, Variation]], modes: Sequence[str], streams: int, repeats: int, seed: int = 0
) -> List[Point]:
    """Return all points in random order, so that slowdowns of the machine do not bias any of them.

    Args:
        crews: numbers of workers, each with the settings in which its jobs differ from the experiment.
        modes: modes of `Point`.
        streams: number of streams of a single worker.
        repeats: repetitions of each job.
        seed: seed of the order.
    """
    points = [
        Point(mode, number, streams if mode == "strong" else streams * number, repeat, varied)
        for mode in modes
        for number, varied in crews
        for repeat in range(1, repeats + 1)
    ]
    random.Random(seed).shuffle(points)  # noqa: S311 - no secret
    return points
