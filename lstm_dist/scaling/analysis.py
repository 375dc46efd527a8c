"""Compute all numbers of a report from the rows of an experiment; its text and pictures use only these."""

from collections import defaultdict
from typing import Dict, List, NamedTuple, Optional, Set

from lstm_dist.scaling.bottlenecks import LossShares, loss_shares
from lstm_dist.scaling.efficiency_tree import EfficiencyTree, efficiency_trees
from lstm_dist.scaling.forecast import Forecast, StepComparison, compare_steps, forecast_steps
from lstm_dist.scaling.link_fits import LinkFit, fit_links, training_fit
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Rows
from lstm_dist.scaling.series import split_series
from lstm_dist.scaling.step_breakdown import StepBreakdown, step_breakdowns
from lstm_dist.scaling.step_distribution import StepDistribution, step_distributions
from lstm_dist.scaling.throughput import FittedLaws, Throughput, fit_laws, throughputs
from lstm_dist.scaling.time_to_perplexity import TargetRuns, target_runs
from lstm_dist.scaling.weak_bytes import weak_bytes


class ModeFindings(NamedTuple):
    """The findings for weak or strong scaling of one series; the lists are ordered by number of workers.

    Attributes:
        name: "weak" or "strong".
        series: name of the series; empty for the only one.
        link_fit: the fit of the path that the jobs used, if it has a link.
        steps: predicted and measured steps; without numbers of workers whose steps were not profiled.
    """

    name: str
    series: str
    throughputs: List[Throughput]
    laws: FittedLaws
    breakdowns: List[StepBreakdown]
    loss_shares: List[LossShares]
    trees: List[EfficiencyTree]
    distributions: List[StepDistribution]
    link_fit: Optional[LinkFit]
    steps: List[StepComparison]
    forecast: Optional[Forecast]

    @property
    def title(self) -> str:
        """Return the mode, and the series if there are several."""
        return ", ".join(filter(None, (self.name, self.series)))

    @property
    def baseline(self) -> int:
        """Return the smallest number of workers measured, with which the others are compared."""
        return self.throughputs[0].baseline


class Findings(NamedTuple):
    """All findings.

    Attributes:
        series: the rows of each series.
        modes: modes with measurements: weak scaling of all series, then strong scaling.
        link_fits: one fit per communication path.
        target_runs: time to perplexity, one entry per batch and number of workers.
    """

    rows: Rows
    series: List[Rows]
    modes: List[ModeFindings]
    link_fits: List[LinkFit]
    target_runs: List[TargetRuns]

    @property
    def oversubscribed(self) -> Dict[str, List[int]]:
        """Return the numbers of workers that were oversubscribed, by the name of their series."""
        found: Dict[str, Set[int]] = defaultdict(set)
        for group in (throughput.group for mode in self.modes for throughput in mode.throughputs):
            if group.oversubscribed:
                found[group.series].add(group.workers)
        return {series: sorted(numbers) for series, numbers in found.items()}


def analyse(rows: Rows) -> Findings:
    """Compute all findings."""
    link_fits = fit_links(rows)
    series = split_series(rows)
    modes = [_mode_findings(part, name, link_fits) for name in MODES for part in series if part.finished([name])]
    runs = [run for part in series for run in target_runs(part)]
    return Findings(rows, series, modes, link_fits, runs)


def _mode_findings(rows: Rows, name: str, link_fits: List[LinkFit]) -> ModeFindings:
    fit = training_fit(link_fits, rows)
    rates = throughputs(rows, name)
    groups = [rate.group for rate in rates]
    breakdowns = step_breakdowns(groups)
    sent = weak_bytes(rows.experiment, rows.corpus) if name == "weak" and fit else {}
    return ModeFindings(
        name=name,
        series=rows.series,
        throughputs=rates,
        laws=fit_laws(name, rates),
        breakdowns=breakdowns,
        loss_shares=loss_shares(breakdowns, fit),
        trees=efficiency_trees(groups),
        distributions=step_distributions(groups),
        link_fit=fit,
        steps=compare_steps(rates, breakdowns, fit),
        forecast=forecast_steps(rates, breakdowns, fit, sent),
    )
