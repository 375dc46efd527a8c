"""Build the tables of a report; the cells' facts keep the unrounded values."""

from math import inf, isfinite, isnan, nan, sqrt
from typing import Dict, List, Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table, estimate
from lstm_dist.experiments.report.formatters import interval, milliseconds, number, signed, size
from lstm_dist.experiments.stats import Estimate
from lstm_dist.scaling.analysis import Findings, Mode
from lstm_dist.scaling.bottlenecks import Shares
from lstm_dist.scaling.forecast import Far, Forecast, Step
from lstm_dist.scaling.link_fits import NAMES, Measured, Wire
from lstm_dist.scaling.records import Network, Point
from lstm_dist.scaling.speedup_laws import Law
from lstm_dist.scaling.step_breakdown import PARTS, TimeSplit
from lstm_dist.scaling.throughput import Laws, Throughput
from lstm_dist.scaling.time_to_perplexity import Reach

OVERSUBSCRIBED = "oversubscribed"


def _count(name: str, value: int) -> Cell:
    """Return a cell with a count."""
    return Cell(number(value), {name: value})


def _mark(oversubscribed: bool) -> str:
    return OVERSUBSCRIBED if oversubscribed else ""


def _failed(job: "Point | Network", cells: List[Cell], width: int) -> Row:
    """Return a row with a failed job's last error message in place of its numbers."""
    text = f"{job.id if isinstance(job, Point) else 'failed'}: status {job.status}: {job.message or 'no message'}"
    facts = {"state": "failed", "status": job.status, "message": job.message}
    return Row([*cells, Cell(text, facts, width - len(cells))], "failed")


def of_scaling(findings: Findings) -> Table:
    """Return one row per mode and number of workers, and one per failed job."""
    columns = ["mode", "workers", "streams", "jobs", "chars/s", "95 %", "speedup", "95 %", "efficiency, %", "95 %"]
    columns += ["ms a step", ""]
    reached = [(t.group.mode, t.group.workers, _scaling(t)) for mode in findings.modes for t in mode.throughputs]
    failed = [
        (job.mode, job.workers, _failed(job, _place(job.mode, job.workers, job.streams), len(columns)))
        for job in findings.failed("weak", "strong")
    ]
    order = {"weak": 0, "strong": 1}
    rows = sorted([*reached, *failed], key=lambda row: (order[row[0]], row[1]))
    caption = "Throughput, speedup and efficiency, with 95 % confidence intervals from the repeated jobs"
    return Table(caption, columns, [row for _, _, row in rows], "scaling.csv")


def _place(mode: str, workers: int, streams: int) -> List[Cell]:
    return [
        Cell(mode, {"mode": mode}),
        _count("workers", workers),
        _count("streams", streams),
    ]


def _scaling(reached: Throughput) -> Row:
    group = reached.group
    efficiency = Estimate(*(100 * value for value in reached.efficiency))
    mark = _mark(group.oversubscribed)
    return Row(
        [
            *_place(group.mode, group.workers, group.streams),
            _count("jobs", len(group.points)),
            *estimate("chars_per_sec", reached.chars_per_sec),
            *estimate("speedup", reached.speedup, 2),
            *estimate("efficiency_percent", efficiency, 1),
            Cell(milliseconds(reached.step, 1), {"step_ms": reached.step * 1000}),
            Cell(mark, {"state": "finished", "oversubscribed": group.oversubscribed}),
        ],
        mark,
    )


def of_laws(modes: Sequence[Mode]) -> Table:
    """Return one row per fitted law."""
    columns = ["law", "fitted to", "contention σ, %", "coherency κ, %", "speedup at most", "measured / fitted − 1"]
    laws = [(mode.laws, law) for mode in modes for law in (mode.laws.amdahl, mode.laws.usl) if law]
    return Table("Laws of speedup, fitted to the points with cores of their own", columns, [_law(*one) for one in laws])


def _law(laws: Laws, law: Law) -> Row:
    residuals = [f"{workers}: {signed(100 * value)} %" for workers, value in zip(laws.workers, law.residuals)]
    facts = {f"residual_{workers}_percent": 100 * value for workers, value in zip(laws.workers, law.residuals)}
    return Row(
        [
            Cell(f"{law.name}, {laws.mode}"),
            Cell(f"{', '.join(map(str, laws.workers))} workers"),
            Cell(number(100 * law.contention, 2), {"contention_percent": 100 * law.contention}),
            Cell(
                number(100 * law.coherency, 3) if law is laws.usl else "–", {"coherency_percent": 100 * law.coherency}
            ),
            Cell(_most(law), {"limit": law.limit, "peak": law.peak}),
            Cell("; ".join(residuals), facts),
        ]
    )


def _most(law: Law) -> str:
    if not isfinite(law.limit):
        return "no limit"
    return number(law.limit, 1) + (f" at {number(law.peak)} workers" if isfinite(law.peak) else "")


def of_shares(modes: Sequence[Mode]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", "ms a step", "compute itself, %", "further compute, %", "wait, %", "latency, %"]
    columns += ["bandwidth, %", "data, update, %", ""]
    caption = "What a step's time goes to, in percent of it"
    return Table(caption, columns, [_shares(one) for mode in modes for one in mode.shares])


def _shares(one: Shares) -> Row:
    group = one.split.group
    parts = {"useful": one.useful, "shared": one.shared, "wait": one.wait}
    parts.update({"latency": one.latency, "bandwidth": one.bandwidth, "rest": one.rest})
    cells = [Cell(number(100 * value, 1), {f"{name}_percent": 100 * value}) for name, value in parts.items()]
    if isnan(one.latency):
        cells[3:5] = [Cell(f"exchange: {number(100 * one.exchange, 1)}", {"exchange_percent": 100 * one.exchange}, 2)]
    mark = _mark(group.oversubscribed)
    total = Cell(milliseconds(one.split.total), {"step_ms": 1000 * one.split.total})
    workers = _count("workers", group.workers)
    return Row([Cell(group.mode, {"mode": group.mode}), workers, total, *cells, Cell(mark)], mark)


def of_times(modes: Sequence[Mode]) -> Table:
    """Return one row per mode, number of workers and part of a step."""
    columns = ["mode", "workers", "part", "mean, ms", "share, %", "least, ms", "median, ms", "most, ms"]
    columns += ["last the most often", "of the steps, %"]
    rows = [_times(split, part) for mode in modes for split in mode.splits for part in PARTS]
    caption = "The five times of a step: mean of all, and the least, median and greatest of the workers' means"
    return Table(caption, columns, rows, "times.csv", folded=True)


def _times(split: TimeSplit, part: str) -> Row:
    spread, group = split.parts[part], split.group
    share = spread.mean / split.total
    last = split.slowest
    times = {f"{name}_ms": 1000 * value for name, value in spread._asdict().items()}
    cells = [Cell(number(value, 2), {name: value}) for name, value in times.items()]
    cells.insert(1, Cell(number(100 * share, 1), {"share_percent": 100 * share}))
    if last:
        cells.append(Cell(f"rank {last.rank} on {last.host}", {"last_host": last.host, "last_rank": last.rank}))
        cells.append(Cell(number(100 * last.share, 1), {"last_percent": 100 * last.share}))
    else:
        cells += [Cell("–"), Cell("–")]
    return Row(
        [
            Cell(group.mode, {"mode": group.mode}),
            _count("workers", group.workers),
            Cell(part, {"part": part}),
            *cells,
        ],
        _mark(group.oversubscribed),
    )


def of_slowest(modes: Sequence[Mode]) -> Table:
    """Return one row per mode and number of workers above 1."""
    columns = [
        "mode",
        "workers",
        "last the most often",
        "of the steps, %",
        "by chance, %",
        "compute, ms",
        "",
    ]
    rows = [_slowest(split) for mode in modes for split in mode.splits if split.slowest]
    caption = "Who was waited for; compute is the least, median and greatest of the workers' means"
    return Table(caption, columns, rows)


def _slowest(split: TimeSplit) -> Row:
    last, group, compute = split.slowest, split.group, split.parts["compute"]
    mark = _mark(group.oversubscribed)
    share = last.share if last else nan
    return Row(
        [
            Cell(group.mode),
            _count("workers", group.workers),
            Cell(f"rank {last.rank} on {last.host}" if last else "–"),
            Cell(number(100 * share, 1), {"last_percent": 100 * share}),
            Cell(number(100 / group.workers, 1), {"chance_percent": 100 / group.workers}),
            Cell(" / ".join(milliseconds(value, 1) for value in compute[1:])),
            Cell(mark),
        ],
        mark,
    )


def of_links(wires: Sequence[Wire]) -> Table:
    """Return one row per path."""
    columns = ["path", "fitted to", "a call, ms", "α short, ms", "α, ms", "β, ns/byte", "bandwidth 1/β, MB/s"]
    columns += ["typical error, %", "largest, %"]
    caption = "The link: what a call, a message (α; of buffers below 4 KiB, and from 256 KiB on) and a byte (β) cost"
    return Table(caption, columns, [_link(wire) for wire in wires])


def _link(wire: Wire) -> Row:
    if wire.link is None:
        return Row([Cell(wire.name), Cell(f"no link: {wire.lack}", span=8)])
    link = wire.link
    off = [abs(value) for value in link.residuals]
    figures = {
        "overhead_ms": (1e3 * link.overhead, 4),
        "alpha_short_ms": (1e3 * link.alpha_short, 4),
        "alpha_ms": (1e3 * link.alpha, 4),
        "beta_ns": (1e9 * link.beta, 3),
        "bandwidth_mb": (1e-6 / link.beta if link.beta > 0 else inf, 0),
        "typical_percent": (100 * sqrt(sum(value**2 for value in off) / len(off)), 1),
        "largest_percent": (100 * max(off), 1),
    }
    cells = [Cell(number(value, digits), {name: value}) for name, (value, digits) in figures.items()]
    return Row([Cell(wire.name), Cell(f"{', '.join(map(str, wire.workers))} workers"), *cells])


def of_network(findings: Findings) -> Table:
    """Return one row per path, number of workers and size."""
    columns = ["path", "workers", "size", "times", "median, ms", "quartiles, ms", "fitted, ms", "residual, %", ""]
    rows = [_measured(one) for wire in findings.wires for one in wire.measured]
    for job in findings.rows.network:
        if job.state == "failed":
            place = [Cell(NAMES[job.path], {"path": job.path}), _count("workers", job.workers)]
            rows.append(_failed(job, place, len(columns)))
    return Table("Every allreduce that was measured", columns, rows, "network.csv", folded=True)


def _measured(one: Measured) -> Row:
    mark = _mark(one.oversubscribed)
    return Row(
        [
            Cell(NAMES[one.path], {"path": one.path}),
            _count("workers", one.workers),
            Cell(size(one.bytes), {"bytes": one.bytes}),
            _count("repetitions", one.repetitions),
            Cell(milliseconds(one.median, 3), {"median_ms": 1e3 * one.median}),
            Cell(interval(1e3 * one.low, 1e3 * one.high, 3), {"low_ms": 1e3 * one.low, "high_ms": 1e3 * one.high}),
            Cell(milliseconds(one.fitted, 3), {"fitted_ms": 1e3 * one.fitted}),
            Cell(signed(100 * one.residual), {"residual_percent": 100 * one.residual}),
            Cell(mark, {"state": "finished", "oversubscribed": one.oversubscribed}),
        ],
        mark,
    )


def of_steps(modes: Sequence[Mode]) -> Table:
    """Return one row per mode and number of workers."""
    columns = [
        "mode",
        "workers",
        "own part, ms",
        "link, ms",
        "predicted, ms",
        "measured, ms",
        "off, %",
        "",
    ]
    caption = "A step as compute and link predict it, beside the measured one"
    return Table(caption, columns, [_step(step) for mode in modes for step in mode.steps])


def _step(step: Step) -> Row:
    group, predicted = step.group, step.predicted
    figures = {
        "own_ms": predicted.compute,
        "link_ms": predicted.exchange,
        "predicted_ms": predicted.step,
        "step_ms": step.measured,
    }
    mark = _mark(group.oversubscribed)
    return Row(
        [
            Cell(group.mode),
            _count("workers", group.workers),
            *(Cell(milliseconds(value, 1), {name: 1000 * value}) for name, value in figures.items()),
            Cell(signed(100 * step.off), {"off_percent": 100 * step.off}),
            Cell(mark),
        ],
        mark,
    )


def of_forecasts(forecasts: Sequence[Forecast]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", "ms a step", "band, ms", "efficiency, %", "band, %"]
    rows = [_far(one, far) for one in forecasts for far in one.far if far.workers > one.measured]
    return Table("Predicted, not measured", columns, rows)


def _far(forecast: Forecast, far: Far) -> Row:
    low, middle, high = (100 * forecast.efficiency(far.workers, step) for step in (far.high, far.middle, far.low))
    return Row(
        [
            Cell(forecast.mode),
            _count("workers", far.workers),
            Cell(milliseconds(far.middle, 1), {"step_ms": 1000 * far.middle}),
            Cell(interval(1000 * far.low, 1000 * far.high, 1), {"low_ms": 1000 * far.low, "high_ms": 1000 * far.high}),
            Cell(number(middle, 1), {"efficiency_percent": middle}),
            Cell(interval(low, high, 1), {"low_percent": low, "high_percent": high}),
        ]
    )


def of_perplexity(findings: Findings) -> Table:
    """Return one row per global batch and number of workers, and one per failed job."""
    columns = ["streams", "workers", "jobs", "characters", "95 %", "statistical, %", "chars/s", "95 %", "hardware, %"]
    columns += ["both, %", "seconds to it", "95 %", ""]
    rows = [((reach.streams, reach.workers), _reach(reach)) for reach in findings.reaches]
    for job in findings.failed("perplexity"):
        _, workers, streams = _place(job.mode, job.workers, job.streams)
        rows.append(((job.streams, job.workers), _failed(job, [streams, workers], len(columns))))
    rows.sort(key=lambda row: row[0])
    caption = "Statistical and hardware efficiency, and their product, against the smallest global batch"
    return Table(caption, columns, [row for _, row in rows], "perplexity.csv")


def _reach(reach: Reach) -> Row:
    mark = _mark(reach.oversubscribed)
    missed = f"{reach.missed} not reached" if reach.missed else ""
    efficiencies: Dict[str, float] = {"hardware_percent": 100 * reach.hardware.value, "both_percent": 100 * reach.both}
    return Row(
        [
            _count("streams", reach.streams),
            _count("workers", reach.workers),
            _count("jobs", reach.repeats),
            *estimate("chars", reach.chars),
            Cell(number(100 * reach.statistical.value, 1), {"statistical_percent": 100 * reach.statistical.value}),
            *estimate("chars_per_sec", reach.chars_per_sec),
            *(Cell(number(value, 1), {name: value}) for name, value in efficiencies.items()),
            *estimate("seconds", reach.seconds, 1),
            Cell(
                ", ".join(filter(None, (missed, mark))),
                {"state": "finished", "missed": reach.missed, "oversubscribed": reach.oversubscribed},
            ),
        ],
        mark,
    )
