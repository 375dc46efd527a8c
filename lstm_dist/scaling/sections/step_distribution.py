"""Section about the distribution of step times, and about jitter."""

from typing import List

from lstm_dist.experiments.report.document import Section
from lstm_dist.experiments.report.formatters import counted, percent
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.distribution_figure import distribution_figure
from lstm_dist.scaling.step_distribution import NAMED_JITTER, steps_needed
from lstm_dist.scaling.summary import full_name
from lstm_dist.scaling.tables.step_distribution import steps_table, workers_table


def step_distribution(findings: Findings) -> List[Section]:
    """Build the section; without timed steps there is none, and the section about their times says so."""
    modes = [mode for mode in findings.modes if mode.distributions]
    if not modes:
        return []
    paragraphs = [
        "How much the timed steps differ. A step lasts as long as that of its slowest worker. Jitter is the share "
        "of a step that would be saved if every worker always took its own median time: the mean useful time of the "
        "slowest worker of each step, less the largest median of a worker, divided by the mean step. It is counted in "
        "each job by itself. A worker that is slow in all steps is no jitter: it lowers load balance.",
        _judge_jitter(modes),
    ]
    section = Section("distribution", "Distribution of step times", paragraphs)
    return [
        section._replace(
            tables=[steps_table(modes), workers_table(modes)],
            pictures=[[distribution_figure(mode) for mode in modes]],
            notes=_explain_missing(modes),
        )
    ]


def _judge_jitter(modes: List[ModeFindings]) -> str:
    """Name the jobs that jitter bounds; oversubscribed ones are not used for conclusions."""
    bound = [
        f"{percent(one.jitter, 0)} with {counted(one.group.workers, 'worker')} under {full_name(mode)}"
        for mode in modes
        for one in mode.distributions
        if one.is_bound_by_jitter and not one.group.oversubscribed
    ]
    limit = percent(NAMED_JITTER, 0)
    if not bound:
        return f"Jitter takes less than {limit} of a step in every job."
    return (
        f"Jitter takes {limit} of a step or more in these jobs: {'; '.join(bound)}. What would help: cores that no "
        "other program uses, no more threads than cores, and no power saving. The table of the workers shows which "
        "of them have slow steps."
    )


def _explain_missing(modes: List[ModeFindings]) -> List[str]:
    """Say why percentiles are missing, and how to obtain them."""
    fewest = min(one.whole.steps for mode in modes for one in mode.distributions)
    if fewest >= steps_needed(99):
        return []
    return [
        f"A dash stands for a percentile of too few steps: the 99th needs {steps_needed(99)} timed steps and the "
        f"95th {steps_needed(95)}, as with fewer steps it would be the slowest one. The fewest here are {fewest}. "
        "For more, use a larger `--repeat`, or a new folder with a smaller `--time-every` or more `--epochs`."
    ]
