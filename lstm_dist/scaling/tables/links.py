"""Tables of the fitted links, and of the allreduces that they are fitted to."""

from math import inf, sqrt
from typing import Iterator, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table
from lstm_dist.experiments.report.formatters import interval, milliseconds, number, signed, size
from lstm_dist.scaling.allreduce_model import Link
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.link_fits import PATH_NAMES, AllreduceMeasurement, LinkFit
from lstm_dist.scaling.tables.cells import count_cell, failed_row, mark


def links_table(fits: Sequence[LinkFit]) -> Table:
    """Return one row per path and link."""
    columns = ["path", "link", "fitted to", "call, ms", "short α, ms", "α, ms", "β, ns/byte", "1/β, MB/s"]
    columns += ["typical error, %", "largest error, %"]
    caption = (
        "The link: cost of a call, of a message (α; short: buffers below 4 KiB, else from 256 KiB on), of a byte (β), "
        "and the bandwidth (1/β)"
    )
    return Table(caption, columns, [row for fit in fits for row in _link_rows(fit)])


def _link_rows(fit: LinkFit) -> Iterator[Row]:
    if fit.link is None:
        yield Row([Cell(fit.name), Cell(f"no link: {fit.reason}", span=9)])
        return
    apart = [workers for workers in fit.workers if workers not in fit.on_one_host]
    for name, link, workers in (
        ("within a host", fit.link.within, fit.on_one_host),
        ("between hosts", fit.link.between, apart),
    ):
        if link:
            yield _link_row([Cell(fit.name), Cell(name), Cell(f"{', '.join(map(str, workers))} workers")], link)


def _link_row(first: Sequence[Cell], link: Link) -> Row:
    errors = [abs(value) for value in link.residuals]
    figures = {
        "overhead_ms": (1e3 * link.overhead, 4),
        "alpha_short_ms": (1e3 * link.alpha_short, 4),
        "alpha_ms": (1e3 * link.alpha, 4),
        "beta_ns": (1e9 * link.beta, 3),
        "bandwidth_mb": (1e-6 / link.beta if link.beta > 0 else inf, 0),
        "typical_percent": (100 * sqrt(sum(error**2 for error in errors) / len(errors)), 1),
        "largest_percent": (100 * max(errors), 1),
    }
    cells = [Cell(number(value, digits), {name: value}) for name, (value, digits) in figures.items()]
    return Row([*first, *cells])


def allreduce_table(findings: Findings) -> Table:
    """Return one row per path, number of workers and size."""
    columns = ["path", "workers", "hosts", "size", "repetitions", "median, ms", "quartiles, ms", "fitted, ms"]
    columns += ["residual, %", ""]
    rows = [_measurement_row(measurement) for fit in findings.link_fits for measurement in fit.measurements]
    for job in findings.rows.allreduce_rows:
        if job.state == "failed":
            first = [Cell(PATH_NAMES[job.path], {"path": job.path}), count_cell("workers", job.workers)]
            rows.append(failed_row(job, first, len(columns)))
    return Table("All measured allreduces", columns, rows, "network.csv", collapsed=True)


def _measurement_row(measurement: AllreduceMeasurement) -> Row:
    low, high, text = 1e3 * measurement.low, 1e3 * measurement.high, mark(measurement.oversubscribed)
    return Row(
        [
            Cell(PATH_NAMES[measurement.path], {"path": measurement.path}),
            count_cell("workers", measurement.workers),
            count_cell("hosts", measurement.hosts),
            Cell(size(measurement.bytes), {"bytes": measurement.bytes}),
            count_cell("repetitions", measurement.repetitions),
            Cell(milliseconds(measurement.median, 3), {"median_ms": 1e3 * measurement.median}),
            Cell(interval(low, high, 3), {"low_ms": low, "high_ms": high}),
            Cell(milliseconds(measurement.fitted, 3), {"fitted_ms": 1e3 * measurement.fitted}),
            Cell(signed(100 * measurement.residual), {"residual_percent": 100 * measurement.residual}),
            Cell(text, {"state": "finished", "oversubscribed": measurement.oversubscribed}),
        ],
        text,
    )
