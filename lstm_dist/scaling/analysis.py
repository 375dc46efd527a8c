"""Compute all numbers of a report from the rows of an experiment; its text and pictures use only these."""

from typing import List, NamedTuple, Optional

from lstm_dist.scaling.bottlenecks import LossShares, loss_shares
from lstm_dist.scaling.efficiency_tree import EfficiencyTree, efficiency_trees
from lstm_dist.scaling.forecast import Forecast, StepComparison, compare_steps, forecast_steps
from lstm_dist.scaling.link_fits import LinkFit, fit_links, training_fit
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import Rows
from lstm_dist.scaling.step_breakdown import StepBreakdown, step_breakdowns
from lstm_dist.scaling.step_distribution import StepDistribution, step_distributions
from lstm_dist.scaling.throughput import FittedLaws, Throughput, fit_laws, throughputs
from lstm_dist.scaling.time_to_perplexity import TargetRuns, target_runs
from lstm_dist.scaling.weak_bytes import weak_bytes


class ModeFindings(NamedTuple):
    """The findings for weak or strong scaling; the lists are ordered by number of workers.

    Attributes:
        name: "weak" or "strong".
        steps: predicted and measured steps; without numbers of workers whose steps were not profiled.
    """

    name: str
    throughputs: List[Throughput]
    laws: FittedLaws
    breakdowns: List[StepBreakdown]
    loss_shares: List[LossShares]
    trees: List[EfficiencyTree]
    distributions: List[StepDistribution]
    steps: List[StepComparison]
    forecast: Optional[Forecast]

    @property
    def baseline(self) -> int:
        """Return the smallest number of workers measured, with which the others are compared."""
        return self.throughputs[0].baseline


class Findings(NamedTuple):
    """All findings.

    Attributes:
        modes: modes with measurements.
        link_fits: one fit per communication path.
        training_fit: the fit of the path that the training jobs used, if it has a link.
        target_runs: time to perplexity, one entry per batch and number of workers.
    """

    rows: Rows
    modes: List[ModeFindings]
    link_fits: List[LinkFit]
    training_fit: Optional[LinkFit]
    target_runs: List[TargetRuns]

    @property
    def oversubscribed(self) -> List[int]:
        """Return the numbers of workers that were oversubscribed."""
        groups = [throughput.group for mode in self.modes for throughput in mode.throughputs]
        return sorted({group.workers for group in groups if group.oversubscribed})


def analyse(rows: Rows) -> Findings:
    """Compute all findings."""
    link_fits = fit_links(rows)
    fit = training_fit(link_fits, rows)
    modes = [_mode_findings(rows, name, fit) for name in MODES if rows.finished([name])]
    return Findings(rows, modes, link_fits, fit, target_runs(rows))


def _mode_findings(rows: Rows, name: str, fit: Optional[LinkFit]) -> ModeFindings:
    rates = throughputs(rows, name)
    groups = [rate.group for rate in rates]
    breakdowns = step_breakdowns(groups)
    sent = weak_bytes(rows.experiment, rows.corpus) if name == "weak" and fit else {}
    return ModeFindings(
        name=name,
        throughputs=rates,
        laws=fit_laws(name, rates),
        breakdowns=breakdowns,
        loss_shares=loss_shares(breakdowns, fit),
        trees=efficiency_trees(groups),
        distributions=step_distributions(groups),
        steps=compare_steps(rates, breakdowns, fit),
        forecast=forecast_steps(rates, breakdowns, fit, sent),
    )
