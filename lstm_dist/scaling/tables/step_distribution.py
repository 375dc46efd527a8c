"""Tables of the distribution of step times: of the job, and of each worker."""

from typing import List, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table
from lstm_dist.experiments.report.formatters import milliseconds, number
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.step_distribution import Distribution, StepDistribution, WorkerDistribution
from lstm_dist.scaling.tables.cells import count_cell, group_cells, mark

_PERCENTILES = ["steps", "median", "95th percentile", "99th percentile", "slowest"]


def steps_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", *_PERCENTILES, "jitter, %", "slowest step", ""]
    rows = [_steps_row(distribution) for mode in modes for distribution in mode.distributions]
    return Table("Distribution of the time of a step, in ms", columns, rows, "steps.csv")


def _steps_row(distribution: StepDistribution) -> Row:
    group, whole, text = distribution.group, distribution.whole, mark(distribution.group.oversubscribed)
    jitter = 100 * distribution.jitter
    where = {"slowest_job": distribution.slowest_job, "slowest_step": distribution.slowest_step}
    return Row(
        [
            *group_cells(group),
            *_distribution_cells(whole),
            Cell(number(jitter, 1), {"jitter_percent": jitter}),
            Cell(f"step {distribution.slowest_step} of {distribution.slowest_job}", where),
            Cell(text, {"oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def workers_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode, number of workers and worker."""
    columns = ["mode", "workers", "rank", "host", *_PERCENTILES, ""]
    rows = [
        _worker_row(distribution, worker)
        for mode in modes
        for distribution in mode.distributions
        for worker in distribution.workers
    ]
    caption = "Useful time (data, compute, update) of each worker in a step, in ms"
    return Table(caption, columns, rows, "workers.csv", collapsed=True)


def _worker_row(distribution: StepDistribution, worker: WorkerDistribution) -> Row:
    group, text = distribution.group, mark(distribution.group.oversubscribed)
    return Row(
        [
            *group_cells(group),
            Cell(f"{worker.rank}", {"rank": worker.rank}),
            Cell(worker.host, {"host": worker.host}),
            *_distribution_cells(worker.useful),
            Cell(text, {"oversubscribed": group.oversubscribed}),
        ],
        text,
    )


def _distribution_cells(times: Distribution) -> List[Cell]:
    """Return the cells of `_PERCENTILES`."""
    names = ("median", "percentile_95", "percentile_99", "slowest")
    cells = [Cell(milliseconds(getattr(times, name)), {f"{name}_ms": 1000 * getattr(times, name)}) for name in names]
    return [count_cell("steps", times.steps), *cells]
