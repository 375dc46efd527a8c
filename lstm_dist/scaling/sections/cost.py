"""Section about what training costs: node-hours, core-hours and energy."""

from math import isfinite
from typing import List, Sequence

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import capitalized, counted, decimals, interval, listed, number
from lstm_dist.experiments.stats import Estimate
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.cost import Cost, costs, energy_sources, spent
from lstm_dist.scaling.job_energy import ACCOUNTED
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.tables.cost import cost_table, spent_table


def cost(findings: Findings) -> Section:
    """Build the section."""
    section = Section("cost", "Cost", [])
    found = [one for mode in findings.modes for one in costs(mode.throughputs)]
    modes = [[one for one in found if one.group.mode == name] for name in MODES]
    if not found:
        return section._replace(paragraphs=["No job has finished whose cost could be told."])
    paragraphs = [_spent(findings.rows.train_rows)]
    paragraphs += [_proposal(usable) for usable in map(_usable, modes) if usable]
    paragraphs.append(_energy([row for one in found for row in one.group.rows]))
    return section._replace(paragraphs=paragraphs, tables=[cost_table(found), spent_table(found)])


def _usable(mode: Sequence[Cost]) -> List[Cost]:
    """Return the costs of the groups that were not oversubscribed."""
    return [one for one in mode if not one.group.oversubscribed]


def _spent(jobs: Sequence[TrainRow]) -> str:
    """State what the experiment has cost, and in which units."""
    total = spent(jobs)
    return (
        f"The {counted(len(jobs), 'training job')} of this experiment took {_short(total.node_hours)} node-hours, or "
        f"{_short(total.core_hours)} core-hours, with their starts. A node-hour is an hour of one host, whatever part "
        "of it the workers use; a core-hour is an hour of one of the cores that the workers may use."
    )


def _proposal(costs: Sequence[Cost]) -> str:
    """State the cost of the fastest group, as a proposal for computing time needs it, and which groups cost least."""
    fastest = max(costs, key=lambda one: one.chars_per_sec.value)
    streams = counted(fastest.group.streams, "stream")
    text = (
        f"For a proposal: under {fastest.group.mode} scaling with {streams}, {_place(fastest)} trained on "
        f"{number(fastest.chars_per_sec.value)} characters per second. 10⁹ characters then take "
        f"{_short(fastest.hours.value)} hours and cost {_amounts(fastest)}; starts, checkpoints and validation are not "
        "included."
    )
    by_nodes = min(costs, key=lambda one: one.node_hours.value)
    by_cores = min(costs, key=lambda one: one.core_hours.value)
    least = [
        f"{_workers(best)} needed the fewest {unit} ({_short(hours)})"
        for best, unit, hours in (
            (by_nodes, "node-hours", by_nodes.node_hours.value),
            (by_cores, "core-hours", by_cores.core_hours.value),
        )
        if best is not fastest
    ]
    return f"{text} {capitalized(listed(least))}." if least else text


def _workers(one: Cost) -> str:
    """Name the number of workers, and the series if there are several."""
    series = one.group.series
    return counted(one.group.workers, "worker") + (f" ({series})" if series else "")


def _place(one: Cost) -> str:
    """Name the workers, hosts and cores."""
    cores = counted(one.cores, "core")
    return f"{_workers(one)} on {counted(one.hosts, 'host')} with " f"{cores if one.hosts == 1 else f'{cores} in all'}"


def _amounts(one: Cost) -> str:
    """State the node-hours and how they vary, the core-hours, and the energy if it is known."""
    hours, energy = one.node_hours, one.kilowatt_hours.value
    amounts = [f"{_short(hours.value)} node-hours{_spread(hours)}", f"{_short(one.core_hours.value)} core-hours"]
    amounts += [f"{_short(energy)} kWh"] if isfinite(energy) else []
    return listed(amounts)


def _spread(value: Estimate) -> str:
    """State the interval of a value, or both measurements if there are only two, whose interval is of little use."""
    if len(value.repeats) == 2:
        return f" ({listed([_short(repeat) for repeat in sorted(value.repeats)])} in its two jobs)"
    limits = interval(value.low, value.high, decimals(value.value))
    return f" (95 % interval: {limits})" if isfinite(value.low + value.high) else ""


def _energy(jobs: Sequence[TrainRow]) -> str:
    """State where the energy comes from, or why it is unknown."""
    known, unknown = (energy_sources(jobs, is_known) for is_known in (True, False))
    sentences = []
    if known:
        sentences.append(f"The energy comes from: {'; '.join(known)}.")
    if set(known) - {ACCOUNTED}:
        sentences.append(
            "The counters of RAPL and NVML were read on every host, at the beginning and the end of the epochs that "
            "count. RAPL counts whole processor packages, also cores that the job does not use; memory, network and "
            "cooling are not included."
        )
    if unknown:
        which = "of some jobs " if known else ""
        sentences.append(f"The energy {which}is unknown: {'; '.join(unknown)}.")
    return " ".join(sentences)


def _short(value: float) -> str:
    """Format with three significant digits."""
    return number(value, decimals(value))
