"""Attempts at a job: a program that starts a job again after a failure numbers its attempts.

A worker of an earlier attempt may still run, on a host that was cut off, and sees the same run directory. The lock of
the directory names the attempt that writes there; earlier attempts of the same job have to leave it alone.
"""

import os
import uuid
from typing import NamedTuple, Optional

ATTEMPT = "LSTM_DIST_ATTEMPT"  # environment variable in which the workers of an attempt find what identifies it
# The same for a program that starts attempts itself: it begins with this one. Under the name above, the program would
# belong to that attempt, and be ended with what earlier attempts have left running.
FIRST_ATTEMPT = "LSTM_DIST_FIRST_ATTEMPT"


class Attempt(NamedTuple):
    """One attempt at a job.

    Attributes:
        job: identifies the job: a random word, or the number of a Slurm job.
        number: of the attempt; later ones have greater numbers.
    """

    job: str
    number: int

    def __str__(self) -> str:
        return f"{self.job}.{self.number}"

    @classmethod
    def parse(cls, text: str) -> Optional["Attempt"]:
        """Return the attempt that `str` has written; None for any other text."""
        job, _, number = text.rpartition(".")
        return cls(job, int(number)) if job and number.isdecimal() else None

    @classmethod
    def current(cls) -> Optional["Attempt"]:
        """Return the attempt that this process belongs to; None if no program numbers them."""
        return cls.parse(os.environ.get(ATTEMPT, ""))

    @classmethod
    def first(cls) -> "Attempt":
        """Return the attempt with which this process begins to number them: by default, the first at a new job."""
        return cls.parse(os.environ.get(FIRST_ATTEMPT, "")) or cls(uuid.uuid4().hex, 1)

    def precedes(self, other: Optional["Attempt"]) -> bool:
        """Return whether this is an earlier attempt at the same job."""
        return other is not None and self.job == other.job and self.number < other.number
