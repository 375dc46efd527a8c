"""Describe how the times of timed steps are distributed, and how much of them is jitter."""

from math import nan
from typing import List, NamedTuple, Sequence

import numpy as np

from lstm_dist.scaling.profiled_steps import ProfiledJob, Seconds, profiled_jobs
from lstm_dist.scaling.throughput import JobGroup

NAMED_JITTER = 0.05  # of a step; from here on a report says that jitter bounds the job


class Distribution(NamedTuple):
    """Seconds of a number of steps.

    Attributes:
        quartile, median, upper_quartile, percentile_95, percentile_99: interpolated between steps; the last two are nan
            with fewer than `steps_needed`, because the slowest step would then stand for them.
    """

    steps: int
    fastest: float
    quartile: float
    median: float
    upper_quartile: float
    percentile_95: float
    percentile_99: float
    slowest: float


class WorkerDistribution(NamedTuple):
    """The useful time (data, compute, update) of one worker; its whole step is as long as that of all others.

    Attributes:
        host: those of the rank in all jobs, as each may run on other nodes.
    """

    rank: int
    host: str
    useful: Distribution


class StepDistribution(NamedTuple):
    """The distribution of the step times of a group, over the steps of all its jobs.

    Attributes:
        whole: a step of the job: all five parts, of the worker that took longest.
        workers: one entry per rank.
        slowest_job, slowest_step: where the slowest step was.
        jitter: share of the mean step that would be saved if every worker always took its own median time:
            (mean over steps of the slowest worker's useful time - the largest median of a worker) / mean step. A worker
            that is always slow adds nothing to it, as its median is the largest one. At least 0.
    """

    group: JobGroup
    whole: Distribution
    workers: List[WorkerDistribution]
    slowest_job: str
    slowest_step: int
    jitter: float

    @property
    def is_bound_by_jitter(self) -> bool:
        """Return whether jitter takes enough of a step to be named in a report."""
        return self.jitter >= NAMED_JITTER


def steps_needed(percentile: int) -> int:
    """Return the number of steps of which one is expected above this percentile."""
    return 100 // (100 - percentile)


def step_distributions(groups: Sequence[JobGroup]) -> List[StepDistribution]:
    """Return one distribution per group with timed steps."""
    profiled = [(group, profiled_jobs(group.rows)) for group in groups]
    return [_step_distribution(group, jobs) for group, jobs in profiled if jobs]


def _step_distribution(group: JobGroup, jobs: Sequence[ProfiledJob]) -> StepDistribution:
    times = [job.total.max(axis=1) for job in jobs]
    slowest_job, slowest = max(zip(jobs, times), key=lambda one: float(one[1].max()))
    useful = np.concatenate([job.useful for job in jobs])
    hosts = [", ".join(dict.fromkeys(of_rank)) for of_rank in zip(*(job.hosts for job in jobs))]
    workers = [WorkerDistribution(rank, host, _distribution(useful[:, rank])) for rank, host in enumerate(hosts)]
    return StepDistribution(
        group=group,
        whole=_distribution(np.concatenate(times)),
        workers=workers,
        slowest_job=slowest_job.name,
        slowest_step=slowest_job.steps[int(slowest.argmax())],
        jitter=_jitter(jobs),
    )


def _distribution(times: Seconds) -> Distribution:
    def above(percentile: int) -> float:
        return float(np.percentile(times, percentile)) if len(times) >= steps_needed(percentile) else nan

    fastest, quartile, median, upper_quartile, slowest = np.percentile(times, (0, 25, 50, 75, 100)).tolist()
    return Distribution(len(times), fastest, quartile, median, upper_quartile, above(95), above(99), slowest)


def _jitter(jobs: Sequence[ProfiledJob]) -> float:
    """Return the jitter of all jobs; medians are those of one job, so that one slow job is not taken for jitter."""
    lost = sum(float((job.useful.max(axis=1) - np.median(job.useful, axis=0).max()).sum()) for job in jobs)
    return max(0.0, lost / sum(float(job.total.max(axis=1).sum()) for job in jobs))
