"""Section about throughput, speedup and efficiency."""

from typing import Dict, List, Sequence

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import capitalized, counted, listed
from lstm_dist.scaling import throughput_figures as figures
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.sections.suggestion import WORKERS
from lstm_dist.scaling.tables.throughput import laws_table, throughput_table

FIGURES = figures.throughput_figure, figures.efficiency_figure


def throughput(findings: Findings, out: str) -> Section:
    """Build the section; `out` is the flag of the commands that would complete it."""
    modes = findings.modes
    section = Section("scaling", "Throughput, speedup, efficiency", [])
    notes = [
        f"{capitalized(name)} scaling was not measured; run `jobs/scale.py --mode {name} {WORKERS} {out}`."
        for name in ("weak", "strong")
        if name not in [mode.name for mode in modes]
    ]
    tables = [throughput_table(findings)]
    if not modes:
        return section._replace(paragraphs=notes, tables=tables if tables[0].rows else [])
    paragraphs = [
        "In weak scaling every worker has as many streams as a single worker; in strong scaling all workers share "
        f"them.{_series(findings)} {_baseline(modes)} Hollow markers are oversubscribed (more threads than cores, or "
        "workers than GPUs); the laws are not fitted to them. Bars are 95 % intervals, with an arrow where one leaves "
        "the picture; short dashes are the single jobs of a number of workers with fewer than three. The table has the "
        "values of two jobs in place of an interval."
    ]
    pictures = [[figure(group) for figure in FIGURES] for group in figures.compared(modes)]
    pictures += [figures.speedup_figures(modes)]
    if any(mode.laws.amdahl for mode in modes):
        tables.append(laws_table(modes))
        notes.append(
            "Amdahl (1967): N / (1 + σ (N − 1)); USL, the universal scalability law (Gunther 2007): "
            f"N / (1 + σ (N − 1) + κ N (N − 1)).{_relative_laws(modes)} A law with as many parameters as points fits "
            "them exactly, so that its residuals are meaningless."
        )
    notes += _without_law(modes)
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _series(findings: Findings) -> str:
    """Say what a series is, if there are several."""
    if len(findings.series) < 2:
        return ""
    return (
        " Jobs that differ only in workers and streams are a series. Speedup and efficiency are relative to the "
        "baseline of the same series, so that series are compared by their throughput."
    )


def _baseline(modes: Sequence[ModeFindings]) -> str:
    """Say what speedup and efficiency are relative to."""
    if all(mode.baseline == 1 for mode in modes):
        return "Speedup is relative to one worker of the same mode."
    baselines: Dict[int, List[str]] = {mode.baseline: [] for mode in modes}
    for mode in modes:
        baselines[mode.baseline].append(mode.title)
    named = [
        counted(workers, "worker") + (f" ({listed(names)})" if len(baselines) > 1 else "")
        for workers, names in baselines.items()
    ]
    return (
        f"The baseline is the smallest number of workers measured: {listed(named)}. Its efficiency is 100 %, and its "
        "speedup is its number of workers; other speedups are that number times the throughput relative to the "
        "baseline, so that N workers without loss have a speedup of N."
    )


def _relative_laws(modes: Sequence[ModeFindings]) -> str:
    """Say how the laws are fitted where one worker was not measured."""
    if all(mode.baseline == 1 for mode in modes):
        return ""
    return (
        " With a baseline of N₀ workers, N₀ S(N) / S(N₀) is fitted, where S is this law, so that σ and κ are those of "
        "speedups over one worker, which was not measured."
    )


def _without_law(modes: Sequence[ModeFindings]) -> List[str]:
    """Name the modes that no law fits."""
    return [
        f"No law is fitted to {mode.title}: beyond {counted(mode.baseline, 'worker')}, throughput falls faster "
        "than the laws allow."
        for mode in modes
        if mode.laws.workers and not (mode.laws.amdahl or mode.laws.usl)
    ]
