"""Build the report that compares two scaling experiments, A and B."""

from collections import defaultdict
from pathlib import Path
from typing import Dict, List, Sequence

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.report.document import Cell, Report, Row, Section, Table, estimate_cells
from lstm_dist.experiments.report.formatters import counted, listed, milliseconds, number, signed
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.scaling.comparison.differences import Difference, differences
from lstm_dist.scaling.comparison.figures import ratio_figure
from lstm_dist.scaling.comparison.points import (
    FASTER,
    SAME,
    SLOWER,
    UNKNOWN,
    Comparison,
    PointComparison,
    compare_points,
)
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Rows
from lstm_dist.scaling.summary import SCALING
from lstm_dist.scaling.tables.cells import count_cell, group_cells, mark

STEM = "comparison"  # of the report's files
_MODEL = ("hidden_size", "layers", "vocab_size", "seq_len")


def report(folders: Sequence[Path], rows: Sequence[Rows]) -> Report:
    """Build the report of two experiments; `folders` are A, the reference, and B.

    Raises:
        UserError: if they have no point in common.
    """
    comparison, changed = compare_points(*rows), differences(*rows)
    if not comparison.points:
        raise UserError(
            f"{folders[0]} and {folders[1]}: have no finished weak or strong point with the same number of workers and "
            "streams; measure one with the same --workers, --mode and --streams",
            ExitStatus.BAD_DATA,
        )
    facts = [("A", str(folders[0].resolve())), ("B", str(folders[1].resolve()))]
    sections = [_throughput(comparison, rows), _steps(comparison), _differences(changed)]
    return Report("Two scaling experiments", _summary(comparison, changed), _warnings(rows), facts, sections)


def _warnings(rows: Sequence[Rows]) -> List[str]:
    models = [[getattr(side.experiment, name) for name in _MODEL] for side in rows]
    found = [f"{name}: {text}" for name, side in zip("AB", rows) for text in side.inconsistencies]
    if models[0] != models[1]:
        found.append("A and B trained different models: a ratio of characters per second compares unequal work")
    return found


def _summary(comparison: Comparison, changed: Sequence[Difference]) -> str:
    """Count the verdicts and name their points, and name what differs."""
    texts = {FASTER: "faster at {}", SLOWER: "slower at {}", SAME: "not measurably different at {}"}
    texts[UNKNOWN] = "undecided at {}, measured once (measure again with `--repeat 3`)"
    by_verdict = {verdict: [p for p in comparison.points if p.verdict == verdict] for verdict in texts}
    verdicts = [texts[verdict].format(_count(points)) for verdict, points in by_verdict.items() if points]
    ratios = sorted(point.ratio.value for point in comparison.points)
    names = listed([difference.name for difference in changed]) or "nothing that was recorded"
    oversubscribed = sum(point.oversubscribed for point in comparison.points)
    caution = f" {counted(oversubscribed, 'point')} oversubscribed: the ratio may say little." if oversubscribed else ""
    return (
        f"Of {counted(len(comparison.points), 'common point')}, B is {listed(verdicts)}; the ratio B / A of "
        f"characters per second is from {number(ratios[0], 3)} to {number(ratios[-1], 3)}.{caution} "
        f"What differs: {names}."
    )


def _count(points: Sequence[PointComparison]) -> str:
    """Count points, and name them if they are few."""
    groups = [point.groups[0] for point in points]
    names = "; ".join(f"{group.title}, {counted(group.workers, 'worker')}" for group in groups)
    return f"{len(points)} ({names})" if len(points) < 4 else str(len(points))


def _throughput(comparison: Comparison, rows: Sequence[Rows]) -> Section:
    by_series: Dict[str, List[PointComparison]] = defaultdict(list)
    for point in comparison.points:
        by_series[", ".join(filter(None, (SCALING[point.groups[0].mode], point.groups[0].series)))].append(point)
    paragraph = (
        "B is faster or slower where the 95 % interval of the ratio excludes 1, and there is no difference where it "
        "includes 1: the jobs differ by no more than repeated jobs do. One point in twenty would be called different "
        "by chance. Bars in the pictures are these intervals; where A or B has too few jobs, short dashes are the "
        "single jobs of B, divided by the mean of A."
    )
    notes = [f"Only {name} has {listed(missing)}." for name, missing in zip("AB", comparison.only) if missing]
    failed = [[job.id for job in side.failed(MODES)] for side in rows]
    notes += [f"Failed jobs of {name}: {listed(jobs)}." for name, jobs in zip("AB", failed) if jobs]
    columns = ["mode", "workers", "streams", "jobs A / B", "chars/s, A", "chars/s, B", "B / A", "95 %", "B is", ""]
    table = Table("Throughput of all workers together", columns, [_row(p) for p in comparison.points], f"{STEM}.csv")
    pictures = [[ratio_figure(name, points) for name, points in by_series.items()]]
    return Section("throughput", "Throughput", [paragraph], [table], pictures, notes)


def _row(point: PointComparison) -> Row:
    first, second = point.groups
    text = mark(point.oversubscribed)
    jobs = Cell(f"{len(first.rows)} / {len(second.rows)}", {"jobs_a": len(first.rows), "jobs_b": len(second.rows)})
    rates = [Cell(number(rate.value), {f"chars_per_sec_{name}": rate.value}) for name, rate in zip("ab", point.rates)]
    return Row(
        [
            *group_cells(first),
            count_cell("streams", first.streams),
            jobs,
            *rates,
            *estimate_cells("ratio", point.ratio, 3),
            Cell(point.verdict, {"verdict": point.verdict}),
            Cell(text),
        ],
        text,
    )


def _steps(comparison: Comparison) -> Section:
    section = Section("times", "Time of a step", [])
    points = [point for point in comparison.points if point.breakdowns]
    if not points:
        return section._replace(paragraphs=["No point has timed steps in both experiments."])
    paragraph = (
        "Milliseconds of B less those of A, averaged over workers and timed steps: where a difference comes from."
    )
    columns = ["mode", "workers", "step, A", *[f"{LABELS[part]}" for part in PARTS], "step, B"]
    rows = [_step_row(point) for point in points]
    table = Table("Change of the parts of a step, ms", columns, rows, f"{STEM}-steps.csv")
    return section._replace(paragraphs=[paragraph], tables=[table])


def _step_row(point: PointComparison) -> Row:
    first, second = point.breakdowns
    changes = {part: 1000 * (second.parts[part].mean - first.parts[part].mean) for part in PARTS}
    return Row(
        [
            *group_cells(point.groups[0]),
            Cell(milliseconds(first.total), {"step_a_ms": 1000 * first.total}),
            *[Cell(signed(change, 2), {f"{part}_change_ms": change}) for part, change in changes.items()],
            Cell(milliseconds(second.total), {"step_b_ms": 1000 * second.total}),
        ]
    )


def _differences(changed: Sequence[Difference]) -> Section:
    section = Section("differences", "What differs", [])
    if not changed:
        return section._replace(paragraphs=["Settings, program, machine and versions are the same."])
    rows = [Row([Cell(name), Cell(first), Cell(second)]) for name, first, second in changed]
    return section._replace(tables=[Table("Properties with different values", ["", "A", "B"], rows)])
