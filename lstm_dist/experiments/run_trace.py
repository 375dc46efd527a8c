"""The trace of a run: the parts of its timed steps, one track for each worker, and its attempts and checkpoints.

The times of steps come from `times.jsonl`, everything else from `timeline.jsonl`.
"""

import contextlib
import json
from datetime import datetime, timezone
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Optional

from pydantic import FiniteFloat, NonNegativeFloat, NonNegativeInt, ValidationError

from lstm_dist.errors import ExitStatus, UserError, printable
from lstm_dist.experiments import run_report
from lstm_dist.experiments.records import Record
from lstm_dist.experiments.report.formatters import counted
from lstm_dist.experiments.trace_events import TraceEvent, Track, trace_object
from lstm_dist.files import replace_text
from lstm_dist.run import step_times, timeline
from lstm_dist.run.goodput import AttemptCourse, phase_seconds
from lstm_dist.run.phase_clock import CHECKPOINTS
from lstm_dist.run.step_times import LABELS, PARTS
from lstm_dist.run.timeline import COMMIT, END, START, Event

FILE = "trace.json"
_RUN = "run"  # the process of the tracks that belong to no worker
_ATTEMPTS, _CHECKPOINTS, _EVENTS = (Track(_RUN, name) for name in ("attempts", "checkpoints", "events"))
_CLOCKS = "every host's own: workers of different hosts are shifted by the difference of their clocks"


class SampledStep(Record):
    """A line of `times.jsonl`; run.step_times.StepTimes defines the parts.

    Attributes:
        started: seconds since 1970; None in files from before this was recorded.
    """

    epoch: NonNegativeInt
    rank: NonNegativeInt
    host: str
    step: NonNegativeInt
    started: Optional[FiniteFloat] = None
    data: NonNegativeFloat
    compute: NonNegativeFloat
    wait: NonNegativeFloat
    wire: NonNegativeFloat
    update: NonNegativeFloat

    @property
    def track(self) -> Track:
        """Return the track of the worker."""
        return Track(f"host {self.host}", f"worker {self.rank}")


class RunTrace(NamedTuple):
    """What a run has for its trace.

    Attributes:
        steps: timed ones, in the order of their numbers and ranks.
        events: the timeline; empty in a run of an earlier version.
        attempts: at the run; empty without a timeline.
        origin: the earliest known time, in seconds since 1970; 0 if none is known.
    """

    steps: List[SampledStep]
    events: List[Event]
    attempts: List[AttemptCourse]
    origin: float


def write(run_dir: Path) -> str:
    """Write the trace into the directory of a run, and return what it has in one line.

    Raises:
        UserError: if the run has no timed steps, or the file cannot be written; the message says what to do.
    """
    found = read(run_dir)
    path, steps = run_dir / FILE, found.steps
    try:
        replace_text(path, json.dumps(make_trace(found), separators=(",", ":")) + "\n")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); check its permissions and the free space",
            ExitStatus.CANNOT_WRITE,
        ) from None
    counts = [
        counted(len({step.step for step in steps}), "timed step"),
        counted(len({step.rank for step in steps}), "worker"),
        counted(len({step.host for step in steps}), "host"),
    ]
    return f"written: {path}, {' of '.join(counts[:2])} on {counts[2]}: open it in the Perfetto viewer, ui.perfetto.dev"


def read(run_dir: Path) -> RunTrace:
    """Read what a run has for its trace; it may still be running.

    Raises:
        UserError: if it has no timed steps; the message says what to do.
    """
    steps = _read_steps(run_dir)
    if not steps:
        raise _without_steps(run_dir)
    events = timeline.read(run_dir)
    has_attempts = any(event.kind == START for event in events)
    attempts = run_report.read(run_dir).history.attempts if has_attempts else []
    times = [step.started for step in steps if step.started is not None]
    times += [*(attempt.began for attempt in attempts), *(event.time for event in events)]
    return RunTrace(steps, events, attempts, min(times, default=0.0))


def make_trace(found: RunTrace) -> Dict[str, Any]:
    """Return the trace as a JSON object, with the tracks of the workers by host and rank first.

    The number of a worker's thread, which viewers show beside its name, is 1000 more than its rank.
    """
    events = [*_attempt_events(found), *_checkpoint_events(found), *_other_events(found), *_step_events(found)]
    used = {event.track for event in events}
    first = {step.rank: step.track for step in reversed(found.steps)}
    workers = [*(first[rank] for rank in sorted(first)), *(step.track for step in found.steps)]
    tracks = [track for track in (*workers, _ATTEMPTS, _CHECKPOINTS, _EVENTS) if track in used]
    about = {}
    if found.origin:
        about = {"begins": datetime.fromtimestamp(found.origin, timezone.utc).isoformat(), "clocks": _CLOCKS}
    if any(step.started is None for step in found.steps):
        about["steps"] = "those without a time of their own, of an earlier version, follow each other without gaps"
    return trace_object(tracks, events, about)


def _step_events(found: RunTrace) -> Iterator[TraceEvent]:
    """Yield the parts of all steps; a step that does not tell when it began follows the one before."""
    latest = 0.0
    for _, workers in groupby(found.steps, key=attrgetter("step")):
        ends = [latest]
        for step in workers:
            begin = latest if step.started is None else step.started - found.origin
            for part in PARTS:
                facts = {"step": step.step, "epoch": step.epoch}
                seconds: float = getattr(step, part)
                yield TraceEvent(step.track, LABELS[part], begin, seconds, facts)
                begin += seconds
            ends.append(begin)
        latest = max(ends)


def _attempt_events(found: RunTrace) -> Iterator[TraceEvent]:
    for number, attempt in enumerate(found.attempts, 1):
        facts = {
            "workers": attempt.workers,
            "first step": attempt.first_step,
            "last step": attempt.step,
            "steps lost": attempt.lost_steps,
            "end": run_report.end_of(attempt),
            "reason": printable(attempt.reason),
            "seconds": attempt.seconds,
        }
        begin, seconds = attempt.began - found.origin, attempt.ended - attempt.began
        yield TraceEvent(_ATTEMPTS, f"attempt {number}", begin, seconds, facts)


def _checkpoint_events(found: RunTrace) -> Iterator[TraceEvent]:
    """Yield the checkpoints: each ended when it was recorded, and took the seconds since the record before."""
    before = 0.0
    for event in found.events:
        now = phase_seconds(event.facts)[CHECKPOINTS]
        if event.kind == COMMIT:
            seconds = max(0.0, now - before)
            begin = event.time - seconds - found.origin
            yield TraceEvent(_CHECKPOINTS, "checkpoint", begin, seconds, {"step": event.facts.get("step")})
        if event.kind in (START, COMMIT):
            before = now


def _other_events(found: RunTrace) -> Iterator[TraceEvent]:
    """Yield the events that are no part of an attempt, such as the loss of a host."""
    for event in found.events:
        if event.kind not in (START, COMMIT, END):
            yield TraceEvent(_EVENTS, event.kind, event.time - found.origin, None, event.facts)


def _read_steps(run_dir: Path) -> List[SampledStep]:
    """Return the steps in the order of their numbers and ranks; lines that are none, as after a crash, are skipped.

    Raises:
        UserError: if the file exists and cannot be read.
    """
    path, steps = run_dir / step_times.FILE, []
    try:
        lines = path.read_bytes().splitlines() if path.exists() else []
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    for line in lines:
        with contextlib.suppress(ValidationError):
            steps.append(SampledStep.model_validate_json(line))
    return sorted(steps, key=attrgetter("step", "rank"))


def _without_steps(run_dir: Path) -> UserError:
    """Return the error for a folder without timed steps, which says what to do."""
    runs = sorted(run_dir.glob(f"points/*/run/{step_times.FILE}"))
    if runs:
        advice = f"holds an experiment: give --trace the directory of one of its runs, such as {runs[0].parent}"
    elif run_report.is_run(run_dir):
        advice = (
            f"has no timed steps in {step_times.FILE}: start or --resume it with --time-every 25, which takes the "
            "times of every 25th step; they are written with the next report, checkpoint or epoch"
        )
    else:
        advice = f"{'is not the directory of a run' if run_dir.is_dir() else 'no such folder'}; give --trace one"
    return UserError(f"{run_dir}: {advice}", ExitStatus.NO_INPUT)
