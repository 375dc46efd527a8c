"""Section about the time to a perplexity."""

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import listed
from lstm_dist.scaling import figures
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.sections.suggestion import WORKERS
from lstm_dist.scaling.tables.perplexity import perplexity_table


def perplexity(findings: Findings, out: str) -> Section:
    """Build the section; `out` is the flag of the commands that would complete it."""
    section = Section("perplexity", "Time to perplexity", [])
    if not findings.target_runs and not findings.rows.failed(["perplexity"]):
        command = f"jobs/scale.py --mode weak {WORKERS} --to-perplexity 50 {out}"
        return section._replace(paragraphs=[f"Time to perplexity was not measured; run `{command}`."])
    paragraphs = [
        "All efficiencies are relative to the smallest global batch. Hardware efficiency is the ratio of characters "
        "per second and worker. Statistical efficiency is the inverse ratio of the characters needed to reach "
        f"perplexity {_target(findings)}. Their product is the efficiency in time to that perplexity."
    ]
    runs = findings.target_runs
    pictures = [figures.target_figures(runs)] if any(run.reached for run in runs) else []
    return section._replace(paragraphs=paragraphs, tables=[perplexity_table(findings)], pictures=pictures)


def _target(findings: Findings) -> str:
    targets = sorted({runs.target for runs in findings.target_runs})
    return listed([f"{target:g}" for target in targets]) or "the target"
