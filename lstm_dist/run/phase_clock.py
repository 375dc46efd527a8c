"""The clock of an attempt: how many seconds it has spent in each phase."""

import time
from typing import Dict

STARTING, STEPS, CHECKPOINTS, SAMPLES = "starting", "steps", "checkpoints", "samples"
VALIDATION, ENDING = "validation", "ending"
PHASES = (STARTING, STEPS, CHECKPOINTS, SAMPLES, VALIDATION, ENDING)


class PhaseClock:
    """Seconds by phase; at any time exactly one phase is running, so that their sum is the time since the start."""

    def __init__(self, began: float) -> None:
        """Begin in the phase STARTING.

        Args:
            began: when the attempt began, in seconds since 1970; this process may have been started later.
        """
        self._seconds = dict.fromkeys(PHASES, 0.0)
        self._phase = STARTING
        self._since = time.perf_counter() - max(0.0, time.time() - began)

    def enter(self, phase: str) -> None:
        """Enter a phase, or stay in it; the time until now belongs to the phase before."""
        now = time.perf_counter()
        self._seconds[self._phase] += now - self._since
        self._since, self._phase = now, phase

    def read(self) -> Dict[str, float]:
        """Return the seconds of each phase so far, to 0.1 ms.

        Those since the last call of `enter`, such as those of a stall, are not among them.
        """
        return {phase: round(seconds, 4) for phase, seconds in self._seconds.items() if seconds}
