"""The metrics of an epoch, one line of metrics.jsonl."""

from typing import NamedTuple, Optional


class EpochMetrics(NamedTuple):
    """One line of metrics.jsonl.

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
