"""Arrange the timed steps of a job as arrays, with one row per step and one column per worker."""

from collections import defaultdict
from typing import Dict, List, NamedTuple, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from lstm_dist.scaling.records import StepProfile, TrainRow

Seconds = NDArray[np.float64]


class ProfiledJob(NamedTuple):
    """The timed steps of one job; the arrays have the shape (steps, workers) and are in seconds.

    Attributes:
        name: the job's.
        steps: numbers of the steps.
        hosts: hosts of the workers, by rank.
        useful: data, compute and update, in which a worker works and depends on no other.
        wire: communication.
        total: all five parts.
    """

    name: str
    steps: Tuple[int, ...]
    hosts: Tuple[str, ...]
    useful: Seconds
    wire: Seconds
    total: Seconds


def profiled_jobs(rows: Sequence[TrainRow]) -> List[ProfiledJob]:
    """Return the jobs that have steps with the times of all workers, and of each job only these steps."""
    complete = [(row, _complete_steps(row)) for row in rows]
    jobs = [_profiled_job(row, steps) for row, steps in complete if steps]
    return [job for job in jobs if job.useful.any()]


def _complete_steps(row: TrainRow) -> List[List[StepProfile]]:
    """Return the profiles of the steps that all workers have recorded, by rank."""
    by_step: Dict[int, Dict[int, StepProfile]] = defaultdict(dict)
    for profile in row.times:
        by_step[profile.step][profile.rank] = profile
    complete = [profiles for _, profiles in sorted(by_step.items()) if len(profiles) == row.workers]
    return [[profile for _, profile in sorted(profiles.items())] for profiles in complete]


def _profiled_job(row: TrainRow, steps: List[List[StepProfile]]) -> ProfiledJob:
    def seconds(*parts: str) -> Seconds:
        return np.array([[sum(getattr(one, part) for part in parts) for one in step] for step in steps])

    return ProfiledJob(
        name=row.id,
        steps=tuple(step[0].step for step in steps),
        hosts=tuple(profile.host for profile in steps[0]),
        useful=seconds("data", "compute", "update"),
        wire=seconds("wire"),
        total=seconds("data", "compute", "wait", "wire", "update"),
    )
