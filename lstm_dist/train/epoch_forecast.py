"""How long an epoch takes, forecast from its first steps, because on a large text its end is hours away."""

import time
from typing import Optional, Tuple

MEASURED = 10.0  # seconds over which steps are timed
LONG = 60.0  # seconds of an epoch from which on its length is worth a line


class EpochForecast:
    """The forecast of one run, which is made once."""

    def __init__(self) -> None:
        self._first: Optional[Tuple[int, float]] = None
        self._is_made = False

    def seconds(self, step: int, steps_per_epoch: int) -> Optional[float]:
        """Return the seconds of an epoch, once, after the first MEASURED seconds; None before, after, or if not LONG.

        Args:
            step: the number of finished steps.
            steps_per_epoch: of the run.
        """
        if self._is_made:
            return None
        now = time.monotonic()
        first, began = self._first = self._first or (step, now)
        if now - began < MEASURED:
            return None
        self._is_made = True
        seconds = steps_per_epoch * (now - began) / max(1, step - first)
        return seconds if seconds >= LONG else None
