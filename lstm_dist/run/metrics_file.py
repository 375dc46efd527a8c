"""metrics.jsonl: a line for every epoch and, where --log-every or --eval-every are not in epochs, for every report.

A report covers the steps since the report before it, across the ends of epochs.
"""

import json
from pathlib import Path
from typing import Any, List, Mapping, NamedTuple, Optional

FILE = "metrics.jsonl"


class EpochMetrics(NamedTuple):
    """The line of an epoch.

    Attributes:
        epoch: counted from 1.
        step: optimizer updates so far.
        loss: mean over all characters of all workers in this epoch, nats per character.
        perplexity: exp(loss).
        bits_per_char: loss / ln 2.
        grad_norm: mean over the epoch's steps of the averaged gradient's norm before clipping.
        chars_per_sec: of the whole job, in this epoch.
        seconds: since training started, samples included.
        valid_perplexity: exp of the validation loss after this epoch; None if not evaluated.
        package_joules, gpu_joules: energy of the processor packages of all hosts, and of the GPUs in use, during the
            steps that chars_per_sec counts; None if unknown.
    """

    epoch: int
    step: int
    loss: float
    perplexity: float
    bits_per_char: float
    grad_norm: float
    chars_per_sec: float
    seconds: float
    valid_perplexity: Optional[float] = None
    package_joules: Optional[float] = None
    gpu_joules: Optional[float] = None


class StepsReport(NamedTuple):
    """The line of a report.

    Attributes:
        epoch: epochs so far, a fraction inside an epoch.
        step: optimizer updates so far.
        steps: how many of them this line covers.
        loss: mean over all characters of all workers in these steps, nats per character.
        perplexity: exp(loss).
        bits_per_char: loss / ln 2.
        grad_norm: mean over these steps of the averaged gradient's norm before clipping.
        learning_rate: of the last step.
        chars_per_sec: of the whole job, in these steps.
        seconds: since training started, samples included.
        valid_perplexity: exp of the validation loss after this step; None if not evaluated.
    """

    epoch: float
    step: int
    steps: int
    loss: float
    perplexity: float
    bits_per_char: float
    grad_norm: float
    learning_rate: float
    chars_per_sec: float
    seconds: float
    valid_perplexity: Optional[float] = None


class Metrics(NamedTuple):
    """The lines of both kinds, in the order of their steps."""

    epochs: List[EpochMetrics]
    reports: List[StepsReport]


def is_epoch(line: Mapping[str, Any]) -> bool:
    """Return whether a parsed line is that of an epoch; earlier versions wrote no others."""
    return "steps" not in line


def read_metrics(path: Path) -> Metrics:
    """Read a file of metrics."""
    metrics = Metrics([], [])
    with path.open(encoding="utf-8") as file:
        for line in map(json.loads, file):
            if is_epoch(line):
                metrics.epochs.append(EpochMetrics(**line))
            else:
                metrics.reports.append(StepsReport(**line))
    return metrics
