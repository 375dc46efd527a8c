"""Section about the efficiency and its factors."""

from typing import List

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import capitalized, counted, listed, number, percent
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.efficiency_tree import ACCEPTABLE, NEGLIGIBLE, EfficiencyTree
from lstm_dist.scaling.summary import full_name
from lstm_dist.scaling.tables.efficiency import MEANINGS, POOR, efficiency_table, factors_table


def efficiency(findings: Findings) -> List[Section]:
    """Build the section; without timed steps there is none, and the section about their times says so."""
    modes = [mode for mode in findings.modes if mode.trees]
    if not modes:
        return []
    paragraphs = [
        "How well a job uses the time of its workers, as a product of factors after POP, the centre of excellence for "
        "Performance Optimisation and Productivity: global = parallel × computation scaling, and parallel = load "
        "balance × serialization × transfer. They are computed from the parts of the timed steps. Computation "
        f"scaling is relative to {_baselines(modes)}.",
        *(_lowest_factor(mode) for mode in modes),
    ]
    notes = [
        f"Cells are blue from {percent(ACCEPTABLE, 0)} on, which POP regards as acceptable, yellow below it, and "
        f"orange with bold numbers below {percent(POOR, 0)}. A factor above {percent(1, 0)} means that the job needs "
        "less time for the same work than the baseline, for example because its data fit in the caches.",
        *_compare_with_throughput(modes),
    ]
    section = Section("efficiency", "Efficiency and its factors", paragraphs)
    return [section._replace(tables=[efficiency_table(modes), factors_table()], notes=notes)]


def _baselines(modes: List[ModeFindings]) -> str:
    numbers = sorted({mode.trees[0].baseline.workers for mode in modes})
    return " or ".join(counted(workers, "worker") for workers in numbers)


def _lowest_factor(mode: ModeFindings) -> str:
    """State the lowest factor of the largest job that was not oversubscribed."""
    usable = [tree for tree in _comparable(mode) if tree.group.workers > tree.baseline.workers]
    if not usable:
        only = "the only jobs with timed steps are those of the baseline, or oversubscribed"
        return f"{capitalized(full_name(mode))}: {only}."
    tree = usable[-1]
    workers, total = tree.group.workers, percent(tree.global_efficiency, 0)
    start = f"{capitalized(full_name(mode))}, {counted(workers, 'worker')}: global efficiency {total}."
    if not tree.lowest_factor:
        return f"{start} Every factor is at least {percent(1 - NEGLIGIBLE)}."
    lowest, meaning = getattr(tree, tree.lowest_factor), MEANINGS[tree.lowest_factor]
    loss = f"{start} The lowest factor is {meaning.label}, {percent(lowest, 0)}"
    return f"{loss}, which is acceptable." if lowest >= ACCEPTABLE else f"{loss}. {meaning.remedy}"


def _comparable(mode: ModeFindings) -> List[EfficiencyTree]:
    return [tree for tree in mode.trees if not tree.group.oversubscribed]


def _compare_with_throughput(modes: List[ModeFindings]) -> List[str]:
    """Compare the efficiency in timed steps with that of the throughput, which is relative to the same baseline."""
    largest = [difference for difference in map(_largest_difference, modes) if difference]
    if not largest:
        return []
    return [
        "Relative to the baseline, global efficiency differs from the efficiency of the throughput by at most "
        f"{listed(largest)}. The throughput is that of all steps. The factors are those of the timed ones, whose "
        "parts do not overlap; the cost of their barrier, which is the wait of the slowest worker, is left out."
    ]


def _largest_difference(mode: ModeFindings) -> str:
    """Return the largest difference of a mode, or "" if there is nothing to compare."""
    baseline = mode.trees[0].baseline.workers
    per_worker = {rate.group.workers: rate.chars_per_sec.value / rate.group.workers for rate in mode.throughputs}
    in_steps = {tree.group.workers: tree.global_efficiency for tree in mode.trees}
    differences = [
        (abs(in_steps[n] / in_steps[baseline] - per_worker[n] / per_worker[baseline]), n)
        for n in (tree.group.workers for tree in _comparable(mode))
        if n > baseline
    ]
    if not differences:
        return ""
    difference, workers = max(differences)
    return f"{number(100 * difference, 1)} percentage points under {full_name(mode)} ({counted(workers, 'worker')})"
