"""Factor the efficiency of a job into load balance, serialization, transfer and computation scaling.

The factors are those of POP, the European centre of excellence for Performance Optimisation and Productivity (its
"Standard Metrics for Performance Analysis", https://co-design.pop-coe.eu/metrics). They are applied to the parts of a
timed step (train.step_timer.StepTimes): the useful time of a worker is data + compute + update, and the workers
depend on each other only once in a step, in the exchange.
"""

from typing import List, NamedTuple, Optional, Sequence

import numpy as np

from lstm_dist.scaling.profiled_steps import ProfiledJob, profiled_jobs
from lstm_dist.scaling.throughput import JobGroup

FACTORS = ("load_balance", "serialization", "transfer", "computation_scaling")
NEGLIGIBLE = 0.005  # loss of a factor, which a report does not name
ACCEPTABLE = 0.8  # POP regards efficiencies above it as acceptable


class StepSeconds(NamedTuple):
    """Mean seconds of a step, in ascending order; u(w, s) is the useful time of worker w in step s.

    Attributes:
        useful: mean of u over workers and steps.
        slowest: useful time of the worker that is slowest on average: the maximum over w of the mean of u over s. It is
            taken in each job by itself, as a rank may be on another core or host in the next job.
        critical: useful time of the worker that is slowest in the step: the mean over s of the maximum of u over w. A
            step on an ideal network, whose transfers take no time, would take this long.
        elapsed: critical, and the communication of the step averaged over the workers. The wait of the slowest worker,
            which is the cost of the barrier of a timed step, is left out.
    """

    useful: float
    slowest: float
    critical: float
    elapsed: float


class EfficiencyTree(NamedTuple):
    """The efficiency of a group as a product of factors, each of which is 1 if nothing is lost.

    Attributes:
        baseline: the group that computation scaling is relative to, with the fewest workers.
        computation_scaling: useful seconds per stream, summed over the workers, of the baseline divided by those of
            this group. As all windows have the same length, they are in the ratio of those per character.
    """

    group: JobGroup
    baseline: JobGroup
    seconds: StepSeconds
    computation_scaling: float

    @property
    def load_balance(self) -> float:
        """Return mean / maximum of the workers' useful times, each averaged over the steps."""
        return self.seconds.useful / self.seconds.slowest

    @property
    def serialization(self) -> float:
        """Return the useful time of the slowest worker / the time on an ideal network.

        The difference is lost by workers that are slow in different steps: then all wait for another one in each step.
        """
        return self.seconds.slowest / self.seconds.critical

    @property
    def transfer(self) -> float:
        """Return the time on an ideal network / the time on the real one."""
        return self.seconds.critical / self.seconds.elapsed

    @property
    def parallel_efficiency(self) -> float:
        """Return load balance x serialization x transfer, the useful share of a step: useful / elapsed seconds."""
        return self.load_balance * self.serialization * self.transfer

    @property
    def global_efficiency(self) -> float:
        """Return parallel efficiency x computation scaling."""
        return self.parallel_efficiency * self.computation_scaling

    @property
    def lowest_factor(self) -> Optional[str]:
        """Return the name of the lowest factor, or None if the loss of each is negligible."""
        name = min(FACTORS, key=lambda factor: getattr(self, factor))
        return name if getattr(self, name) < 1 - NEGLIGIBLE else None


def efficiency_trees(groups: Sequence[JobGroup]) -> List[EfficiencyTree]:
    """Return one tree per group with timed steps, relative to the group of them with the fewest workers."""
    profiled = [(group, profiled_jobs(group.rows)) for group in groups]
    measured = [(group, _step_seconds(jobs)) for group, jobs in profiled if jobs]
    if not measured:
        return []
    baseline, reference = min(measured, key=lambda one: one[0].workers)
    cost = _per_stream(baseline, reference)
    return [EfficiencyTree(group, baseline, one, cost / _per_stream(group, one)) for group, one in measured]


def _step_seconds(jobs: Sequence[ProfiledJob]) -> StepSeconds:
    """Return the means over the steps of all jobs."""
    means = [
        (job.useful.mean(), job.useful.mean(axis=0).max(), job.useful.max(axis=1).mean(), job.wire.mean())
        for job in jobs
    ]
    steps = [len(job.steps) for job in jobs]
    useful, slowest, critical, wire = np.average(means, axis=0, weights=steps).tolist()
    return StepSeconds(useful, slowest, critical, critical + wire)


def _per_stream(group: JobGroup, seconds: StepSeconds) -> float:
    """Return the useful seconds that all workers together need for the window of one stream."""
    return seconds.useful * group.workers / group.streams
