"""Section about throughput, speedup and efficiency."""

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import capitalized
from lstm_dist.scaling import figures
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.sections.suggestion import WORKERS
from lstm_dist.scaling.tables.throughput import laws_table, throughput_table


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
        "them. Speedup is relative to one worker of the same mode. Hollow markers are oversubscribed (more workers "
        "than cores or GPUs); the laws are not fitted to them. Bars are 95 % intervals, with an arrow where one leaves "
        "the picture; short dashes are the single jobs of a number of workers with fewer than three."
    ]
    pictures = [[figures.throughput_figure(modes), figures.efficiency_figure(modes)]]
    with_speedup = [mode for mode in modes if any(rate.speedup.value > 0 for rate in mode.throughputs)]
    pictures.append([figures.speedup_figure(mode) for mode in with_speedup])
    if any(mode.laws.amdahl for mode in modes):
        tables.append(laws_table(modes))
        notes.append(
            "Amdahl (1967): N / (1 + σ (N − 1)); USL, the universal scalability law (Gunther 2007): "
            "N / (1 + σ (N − 1) + κ N (N − 1)). A law with as many parameters as points fits them exactly, so that its "
            "residuals are meaningless."
        )
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)
