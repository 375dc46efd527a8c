"""Characters per second, speedup and efficiency for every number of workers, and the laws fitted to them."""

from collections import defaultdict
from contextlib import suppress
from statistics import median
from typing import Dict, List, NamedTuple, Optional, Tuple

from lstm_dist.experiments.stats import Estimate, mean, ratio
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Rows, TrainRow
from lstm_dist.scaling.speedup_laws import Law, fit_amdahl, fit_usl


class JobGroup(NamedTuple):
    """The finished jobs of one mode, one series and one number of workers.

    Attributes:
        series: name of the series; empty for the only one.
        hosts: number of hosts; 0 if all jobs of the folder ran on a single one.
    """

    mode: str
    workers: int
    streams: int
    oversubscribed: bool
    rows: List[TrainRow]
    series: str = ""
    hosts: int = 0

    @property
    def title(self) -> str:
        """Return the mode, and the series if there are several."""
        return ", ".join(filter(None, (self.mode, self.series)))

    @property
    def bytes(self) -> int:
        """Return the bytes that each worker sends in a step."""
        return round(median(row.bytes for row in self.rows))


class Throughput(NamedTuple):
    """The throughput of a group, compared with the baseline: the smallest number of workers of its mode, N0.

    Attributes:
        baseline: N0.
        chars_per_sec: characters per second of all workers together, averaged over the repetitions.
        speedup: N0 times chars_per_sec relative to the baseline, so that it is N if nothing is lost.
        efficiency: speedup / N, the chars_per_sec of a worker relative to the baseline.
        step: seconds per step.
    """

    group: JobGroup
    baseline: int
    chars_per_sec: Estimate
    speedup: Estimate
    efficiency: Estimate
    step: float

    @property
    def is_baseline(self) -> bool:
        """Return whether the others are compared with this group."""
        return self.group.workers == self.baseline


class FittedLaws(NamedTuple):
    """Laws fitted to the groups of a mode that are not oversubscribed; None with too few groups, or if none fits.

    Attributes:
        workers: N of the fitted groups, one per residual.
    """

    mode: str
    workers: Tuple[int, ...]
    amdahl: Optional[Law]
    usl: Optional[Law]


def job_groups(rows: Rows, mode: str) -> List[JobGroup]:
    """Return the groups of one series by ascending number of workers.

    One worker is the same job under weak and strong scaling: a mode without one uses the other mode's.
    """
    found: Dict[int, List[TrainRow]] = defaultdict(list)
    for row in rows.finished([mode]):
        found[row.workers].append(row)
    if found and 1 not in found:
        streams = rows.experiment.streams
        found[1] = [row for row in rows.finished(MODES) if row.workers == 1 and row.streams == streams]
    return [
        JobGroup(
            mode=mode,
            workers=workers,
            streams=jobs[0].streams,
            oversubscribed=any(job.oversubscribed for job in jobs),
            rows=jobs,
            series=rows.series,
            hosts=max(job.hosts for job in jobs) if rows.on_several_hosts else 0,
        )
        for workers, jobs in sorted(found.items())
        if jobs
    ]


def throughputs(rows: Rows, mode: str) -> List[Throughput]:
    """Return one entry per number of workers of one series; the smallest is the baseline."""
    groups = job_groups(rows, mode)
    rates = {group.workers: [row.chars_per_sec for row in group.rows] for group in groups}
    return [_throughput(group, rates, rows.experiment.seq_len) for group in groups]


def _throughput(group: JobGroup, rates: Dict[int, List[float]], seq_len: int) -> Throughput:
    workers, baseline = group.workers, min(rates)
    rate, relative = mean(rates[workers]), ratio(rates[workers], rates[baseline])
    step = group.streams * seq_len / rate.value
    return Throughput(group, baseline, rate, relative.scaled(baseline), relative.scaled(baseline / workers), step)


def fit_laws(mode: str, throughputs: List[Throughput]) -> FittedLaws:
    """Fit the laws to the groups with more workers than the baseline that are not oversubscribed.

    Amdahl's law has one parameter and needs one group; the universal scalability law needs two.
    """
    fitted = [t for t in throughputs if not t.is_baseline and not t.group.oversubscribed]
    workers, speedups = tuple(t.group.workers for t in fitted), [t.speedup.value for t in fitted]
    amdahl = usl = None
    with suppress(ValueError):
        amdahl = fit_amdahl(workers, speedups, throughputs[0].baseline)
    with suppress(ValueError):
        usl = fit_usl(workers, speedups, throughputs[0].baseline)
    return FittedLaws(mode, workers, amdahl, usl)
