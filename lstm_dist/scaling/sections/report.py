"""Build the scaling report from its sections."""

import shlex
from pathlib import Path

from lstm_dist.experiments.report.document import Report
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.sections.cost import cost
from lstm_dist.scaling.sections.efficiency import efficiency
from lstm_dist.scaling.sections.facts import facts
from lstm_dist.scaling.sections.network import network
from lstm_dist.scaling.sections.perplexity import perplexity
from lstm_dist.scaling.sections.predictions import predictions
from lstm_dist.scaling.sections.step_distribution import step_distribution
from lstm_dist.scaling.sections.step_times import step_times
from lstm_dist.scaling.sections.throughput import throughput
from lstm_dist.scaling.summary import summary


def report(findings: Findings, folder: Path) -> Report:
    """Build the report; `folder` is the experiment's, for the commands that would complete it."""
    out = f"--out {shlex.quote(str(folder))}"
    sections = [throughput(findings, out), *efficiency(findings), step_times(findings, out)]
    sections += [*step_distribution(findings), network(findings, out), predictions(findings)]
    sections += [perplexity(findings, out), cost(findings)]
    warnings = [f"{text}: these results may not be comparable" for text in findings.rows.inconsistencies]
    return Report("Scaling report", summary(findings), warnings, facts(findings), sections)
