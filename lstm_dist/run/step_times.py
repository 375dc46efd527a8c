"""The times of timed steps: the lines of `times.jsonl` in the run directory, and what a log line says about them."""

from collections import Counter, defaultdict
from math import fsum
from typing import Any, Dict, Iterable, Mapping, NamedTuple, Optional, Set, Tuple
from typing import Counter as CounterOf

FILE = "times.jsonl"

Worker = Tuple[int, str]  # rank and host


class StepTimes(NamedTuple):
    """Seconds that one worker spent in the parts of one step.

    Attributes:
        step: counted from 1.
        bytes: that this worker sent, or would have sent to others: the exchanged vector in the type of communication.
        started: when the step began, in seconds since 1970 by the clock of this worker's host.
        data: cutting the window. Consecutive windows of a prepared corpus are read up to 16 at a time, by the first.
        compute: forward and backward.
        wait: waiting for the slowest worker.
        wire: communication, that is averaging the gradients.
        update: clipping and the SGD update.
    """

    step: int
    bytes: int
    started: float
    data: float
    compute: float
    wait: float
    wire: float
    update: float


PARTS = ("data", "compute", "wait", "wire", "update")  # in the order of a step, without gaps
LABELS = {**{part: part for part in PARTS}, "wire": "communication"}  # for people


class SlowestWorker(NamedTuple):
    """The worker that most often finished its backward pass last.

    Attributes:
        share: fraction of the steps in which it was last; 1 / N if all workers are equal.
    """

    rank: int
    host: str
    share: float


def slowest_worker(last: CounterOf[Worker]) -> Optional[SlowestWorker]:
    """Return the worker that was last in most steps; None if there is no step.

    Args:
        last: the number of steps in which a worker was last.
    """
    if not last:
        return None
    (rank, host), count = last.most_common(1)[0]
    return SlowestWorker(rank, host, count / sum(last.values()))


def last_worker(waits: Mapping[Worker, float]) -> Worker:
    """Return the worker that was last in a step: the one that waited least for the others.

    Args:
        waits: seconds that each worker waited.
    """
    return min(waits, key=waits.__getitem__)


class StepShares:
    """What the workers spent timed steps on."""

    def __init__(self) -> None:
        self._last: CounterOf[Worker] = Counter()
        self._seconds = dict.fromkeys(PARTS, 0.0)
        self._hosts: Set[str] = set()

    def add(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Take in steps, with all of their workers.

        Args:
            rows: of `times.jsonl`.
        """
        waits: Dict[int, Dict[Worker, float]] = defaultdict(dict)
        for row in rows:
            waits[row["step"]][row["rank"], row["host"]] = row["wait"]
            self._hosts.add(row["host"])
            for part in PARTS:
                self._seconds[part] += row[part]
        self._last.update(last_worker(step) for step in waits.values() if len(step) > 1)

    def describe(self) -> str:
        """Describe the slowest worker, and what waiting and communication take; empty without several workers."""
        slowest = slowest_worker(self._last)
        if slowest is None:
            return ""
        steps, total = sum(self._last.values()), fsum(self._seconds.values())
        place = f" on {slowest.host}" if len(self._hosts) > 1 else ""
        wait, wire = (100 * self._seconds[part] / total for part in ("wait", "wire"))
        return (
            f"slowest: worker {slowest.rank}{place} ({100 * slowest.share:.0f} % of {steps:,} timed "
            f"step{'' if steps == 1 else 's'}); wait {wait:.0f} %, communication {wire:.0f} %"
        )
