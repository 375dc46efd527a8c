"""Goodput: which share of the time since the first start of a run went into steps that count, and where the rest went.

A step counts unless a later attempt repeats it, because the attempt that did it ended before its next checkpoint. Every
second since the first start is in exactly one part, so that the parts add up over restarts, requeues and changes of the
number of workers.
"""

import math
from types import MappingProxyType
from typing import Any, Dict, Iterable, List, Mapping, NamedTuple, Optional, Tuple

from lstm_dist.run.phase_clock import CHECKPOINTS, ENDING, PHASES, SAMPLES, STARTING, STEPS, VALIDATION
from lstm_dist.run.timeline import COMMIT, END, START, WAITING, Event

LOST, WAIT, BETWEEN = "lost", "waiting", "between"
# The parts, and how a line and a table name them.
PARTS = {
    STEPS: "steps that count",
    LOST: "steps lost",
    STARTING: "starting",
    CHECKPOINTS: "checkpoints",
    SAMPLES: "samples",
    VALIDATION: "validation",
    ENDING: "ending",
    WAIT: "waiting for workers",
    BETWEEN: "between attempts",
}
FINISHED, STOPPED, FAILED = "finished", "stopped", "failed"
_NOTHING: Mapping[str, float] = MappingProxyType({})
_SHOWN = 0.0005  # least share that a line mentions
_SUSPENDED = 0.5  # least seconds between the clocks of wall and phases; an event is written milliseconds after its time


class Goodput(NamedTuple):
    """What the time of a run went to.

    Attributes:
        parts: seconds by part, in the order of PARTS.
        attempts: number of starts.
        steps_lost: steps that were done and do not count.
    """

    parts: Dict[str, float]
    attempts: int
    steps_lost: int

    @property
    def wall(self) -> float:
        """Return the seconds since the first start, which are the sum of the parts."""
        return math.fsum(self.parts.values())

    @property
    def fraction(self) -> float:
        """Return the share of the steps that count; 0 before any time has passed."""
        return self.share(STEPS)

    def share(self, part: str) -> float:
        """Return the share of a part, from 0 to 1."""
        return self.parts[part] / self.wall if self.wall else 0.0

    def record(self) -> Dict[str, Any]:
        """Return the numbers for a JSON file, in seconds to the millisecond."""
        parts = {name: round(seconds, 3) for name, seconds in self.parts.items()}
        return {
            "fraction": round(self.fraction, 5),
            "seconds": round(math.fsum(parts.values()), 3),
            "attempts": self.attempts,
            "steps_lost": self.steps_lost,
            "parts": parts,
        }

    def describe(self) -> str:
        """Describe it in one line, the largest losses first."""
        losses = sorted((name for name in PARTS if name != STEPS), key=self.share, reverse=True)
        names = {**PARTS, LOST: f"{self.steps_lost:,} {PARTS[LOST]}"}
        shown = [f"{names[name]} {_percent(self.share(name))}" for name in losses if self.share(name) >= _SHOWN]
        starts = f" in {self.attempts} attempts" if self.attempts > 1 else ""
        line = f"goodput {_percent(self.fraction)} of {duration(self.wall)}{starts}"
        return f"{line}: {', '.join(shown)}" if shown else line


class Segment(NamedTuple):
    """Steps of an attempt between two records: those after `first`, up to `last`, and their seconds."""

    first: int
    last: int
    seconds: float


class AttemptCourse:
    """One attempt at a run, as far as its timeline tells.

    Attributes:
        began: seconds since 1970.
        workers: number of workers.
        first_step: the step after which it continued.
        step, committed: the last one done, and that of its last checkpoint.
        state: how it ended; empty if it was killed or is running.
        reason: why; empty if unknown.
        seconds: by phase.
        segments: of steps that count.
        lost_seconds, lost_steps: of those that do not.
        course: the step that was done last, by seconds since 1970.
        pause, wait: seconds between the attempt before and this one, and those of them spent waiting for workers.
    """

    def __init__(self, began: float, workers: int, step: int) -> None:
        self.began, self.workers = began, workers
        self.first_step = self.step = self.committed = step
        self.state = self.reason = ""
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self.segments: List[Segment] = []
        self.lost_seconds, self.lost_steps = 0.0, 0
        self.course: List[Tuple[float, int]] = []
        self.pause = self.wait = 0.0
        self._latest = began

    @property
    def ended(self) -> float:
        """Return when it ended, or was last heard of, in seconds since 1970."""
        return self.began + math.fsum(self.seconds.values()) + self.suspended

    @property
    def suspended(self) -> float:
        """Return the seconds in which its machine did not run, and with it the clock of the phases."""
        seconds = self._latest - self.began - math.fsum(self.seconds.values())
        return seconds if seconds >= _SUSPENDED else 0.0

    def advance(self, time: float, facts: Dict[str, Any]) -> None:
        """Take in a record: the step that was done last, and the seconds by phase so far."""
        step, seconds = max(self.step, _integer(facts, "step")), phase_seconds(facts)
        done = max(0.0, seconds[STEPS] - self.seconds[STEPS])
        self.segments.append(Segment(self.step, step, done))
        self.seconds = {name: max(self.seconds[name], seconds[name]) for name in PHASES}
        self.step, self._latest = step, max(self._latest, time)
        self.course.append((self.ended, step))
        self.reason = str(facts.get("reason") or self.reason)

    def lose_after(self, step: int) -> None:
        """Count the steps after `step` as lost; of a segment in which it lies, in proportion to the steps."""
        while self.segments and self.segments[-1].last > step:
            first, last, seconds = self.segments.pop()
            kept = (step - first) / (last - first) if first < step else 0.0
            if kept:
                self.segments.append(Segment(first, step, kept * seconds))
            self.lost_seconds += (1 - kept) * seconds
            self.lost_steps += last - max(first, step)
            if kept:
                break

    def parts(self) -> Dict[str, float]:
        """Return the seconds by part, with those before the attempt."""
        counted = math.fsum(segment.seconds for segment in self.segments)
        between = self.pause - self.wait + self.suspended
        return {**self.seconds, STEPS: counted, LOST: self.lost_seconds, WAIT: self.wait, BETWEEN: between}


class History:
    """The attempts at a run, from the events of its timeline.

    Attributes:
        attempts: in their order; what was before the first event is unknown, as in a run of an earlier version.
    """

    def __init__(self, events: Iterable[Event] = ()) -> None:
        self.attempts: List[AttemptCourse] = []
        self._waiting: List[float] = []  # times of WAITING since the last attempt
        self._gave_up = math.inf  # when the wait has ended in vain
        for event in events:
            self.add(event)

    def add(self, event: Event) -> None:
        """Take in the next event."""
        if event.kind == START:
            self._start(event)
        elif event.kind == WAITING and self.attempts:
            self._waiting.append(event.time)
            self._gave_up = event.time if event.facts.get("is_over") else math.inf
        elif event.kind in (COMMIT, END) and self.attempts:
            attempt = self.attempts[-1]
            attempt.advance(event.time, event.facts)
            if event.kind == COMMIT:
                attempt.committed = attempt.step
            else:
                attempt.state = str(event.facts.get("state", ""))
                if attempt.state not in (FINISHED, STOPPED):
                    attempt.lose_after(attempt.committed)

    def goodput(self, latest: Mapping[str, float] = _NOTHING) -> Goodput:
        """Return what the time went to, up to the last event.

        Args:
            latest: seconds of the last attempt by phase until now, if more are known than those of its last event.
        """
        parts = dict.fromkeys(PARTS, 0.0)
        known = self.attempts[-1].seconds if self.attempts else {}
        for name in known:
            parts[name] += max(0.0, latest.get(name, 0.0) - known[name])
        for attempt in self.attempts:
            for name, seconds in attempt.parts().items():
                parts[name] += seconds
        if self._waiting:
            until = max(self._waiting)
            parts[WAIT] += self._waited(until)
            parts[BETWEEN] += max(0.0, until - self.attempts[-1].ended) - self._waited(until)
        return Goodput(parts, len(self.attempts), sum(attempt.lost_steps for attempt in self.attempts))

    def _start(self, event: Event) -> None:
        """Close the last attempt with what the new one knows about its end, and open the new one."""
        began = _number(event.facts, "began", event.time)
        new = AttemptCourse(began, _integer(event.facts, "workers"), _integer(event.facts, "step"))
        before = self.attempts[-1] if self.attempts else None
        if before is not None:
            known = event.facts.get("previous")
            if isinstance(known, dict) and not before.state:
                before.advance(before.began, known)
                before.state = FAILED if known.get("state") == FAILED else ""
            if before.state != FINISHED:  # between its end and its extension there was nothing to do
                new.pause, new.wait = max(0.0, began - before.ended), self._waited(began)
        for attempt in reversed(self.attempts):
            attempt.lose_after(new.first_step)
        self._waiting, self._gave_up = [], math.inf
        new.advance(event.time, event.facts)
        self.attempts.append(new)

    def _waited(self, until: float) -> float:
        """Return the seconds from the first wait after the last attempt to `until`."""
        since: Optional[float] = min(self._waiting, default=None)
        return 0.0 if since is None else max(0.0, min(until, self._gave_up) - max(since, self.attempts[-1].ended))


def duration(seconds: float) -> str:
    """Format a duration, such as 45 s, 12 min 04 s, or 3 h 20 min."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02} s"
    return f"{whole // 3600:,} h {whole % 3600 // 60:02} min"


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"


def _number(facts: Dict[str, Any], name: str, default: float = 0.0) -> float:
    """Return a number of an event; the default if it is missing or not finite."""
    value = facts.get(name)
    return float(value) if isinstance(value, (int, float)) and math.isfinite(value) else default


def _integer(facts: Dict[str, Any], name: str) -> int:
    return int(_number(facts, name))


def phase_seconds(facts: Dict[str, Any]) -> Dict[str, float]:
    """Return the seconds by phase that a record has; 0 for those that it lacks."""
    given = facts.get("seconds")
    return {name: _number(given, name) if isinstance(given, dict) else 0.0 for name in PHASES}
