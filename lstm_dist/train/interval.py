"""How often a run does something: the values of --log-every, --eval-every and --checkpoint-every.

Steps and epochs are counted alike on all workers, so that each of them knows by itself what is due. Only the root looks
at a clock; what is due by it travels to the others with the gradients (`model/control_flags.py`).
"""

import re
import time
from typing import Any, NamedTuple

_NUMBER = re.compile(r"[0-9]{1,18}")
_COUNT = re.compile(r"([0-9]{1,18})(epoch|step)s?")
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])")


class Interval(NamedTuple):
    """The distance between two occurrences, in one of three units; the other two are 0. All three are 0 for never."""

    epochs: int = 0
    steps: int = 0
    seconds: float = 0.0

    @property
    def is_within_epochs(self) -> bool:
        """Return whether it ends at any step, not only at the ends of epochs."""
        return self.steps > 0 or self.seconds > 0

    def is_due_after_epoch(self, epoch: int) -> bool:
        """Return whether one in epochs ends with this epoch, counted from 1."""
        return self.epochs > 0 and epoch % self.epochs == 0

    def is_due_after_step(self, step: int) -> bool:
        """Return whether one in steps ends with this step of the run, counted from 1."""
        return self.steps > 0 and step % self.steps == 0


NEVER = Interval()


class Intervals(NamedTuple):
    """How often a run reports its progress, evaluates the model and writes a checkpoint."""

    log: Interval = NEVER
    evaluation: Interval = NEVER
    checkpoint: Interval = NEVER

    @property
    def report_steps(self) -> bool:
        """Return whether there are reports inside epochs: each evaluation there is part of one."""
        return self.log.is_within_epochs or self.evaluation.is_within_epochs


class IntervalClock:
    """Tells by the clock of this process when an interval in seconds has passed; one in other units never does."""

    def __init__(self, interval: Interval) -> None:
        self._seconds = interval.seconds
        self.restart()

    def restart(self) -> None:
        """Start an interval now."""
        self._started = time.monotonic()

    def take(self) -> bool:
        """Return whether the interval has passed; if so, start the next one."""
        has_passed = 0 < self._seconds <= time.monotonic() - self._started
        if has_passed:
            self.restart()
        return has_passed


def parse_seconds(text: str) -> float:
    """Return the seconds of a time such as 90s, 5m or 23.5h; 0 for anything else."""
    match = _TIME.fullmatch(text)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0


def parse_interval(text: str) -> Interval:
    """Return the interval that a text such as 20epochs, 500steps, 30s or 5m stands for.

    Raises:
        ValueError: if it stands for none.
    """
    match, seconds = _COUNT.fullmatch(text), parse_seconds(text)
    count = int(match[1]) if match else 0
    if not (count or seconds):
        raise ValueError(
            "Input should be a whole number of epochs or steps, at least 1, or a time, such as 20epochs, 500steps, 30s "
            "or 5m"
        )
    return Interval(seconds=seconds) if match is None else Interval(**{f"{match[2]}s": count})


def interval_text(value: Any, numbers_are_epochs: bool) -> Any:
    """Return a setting as the text of an interval, with its unit; a value of a wrong type is left as it is.

    Args:
        value: from a command line or a file.
        numbers_are_epochs: whether a plain number counts epochs; otherwise it is refused.

    Raises:
        ValueError: if it is no interval.
    """
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return value
    text = str(value)
    if _NUMBER.fullmatch(text):
        if not numbers_are_epochs:
            raise ValueError(f"Input should have a unit, such as {text}s, {text}steps or {text}epochs")
        text += "epoch" if text == "1" else "epochs"
    parse_interval(text)
    return text
