"""The timeline of a run: `timeline.jsonl` in its directory, one event a line, in the order of their times.

Rank 0 writes how each attempt at the run begins, commits and ends. A program that starts the attempts adds what happens
between them, such as the wait for workers. `run/goodput.py` tells from these events what the time of a run went to.
"""

import json
import math
import os
import time
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Set

from lstm_dist.errors import print_warning
from lstm_dist.files import is_superseded

FILE = "timeline.jsonl"

# The kinds of events that goodput is counted from, and their facts. `step` is the last one done; `seconds` are those of
# the attempt by phase; `previous` is what the files tell of an attempt that was killed.
START = "start"  # an attempt has opened the run directory: began, workers, step, seconds, previous
COMMIT = "commit"  # a checkpoint was written: step, seconds
END = "end"  # the attempt ends by itself: state, step, seconds, and a reason
# An attempt is over, and the next one cannot start until there are more workers: is_over, if the wait ends in vain.
WAITING = "waiting"
# An attempt has failed: line, the first cause, of which the rank that wrote END may know nothing. It is not counted.
FAILURE = "failure"

_reported: Set[Path] = set()  # files that could not be written, of which the user knows


class Event(NamedTuple):
    """One line of a timeline.

    Attributes:
        kind: START, COMMIT, END, WAITING, or another word, which is shown but not counted.
        time: seconds since 1970.
        facts: everything else that is known about it.
    """

    kind: str
    time: float
    facts: Dict[str, Any]


def append(run_dir: Path, event: str, **facts: Any) -> Event:
    """Add an event that happens now to the timeline of a run, and return it.

    Write errors never fail a job: the first one is reported in one line, the others are ignored. Nothing is written if
    a later attempt at the job has begun.

    Args:
        run_dir: of the run; without it, nothing is written.
        event: its kind, a word.
        facts: about it; values that JSON has.
    """
    now, path = time.time(), run_dir / FILE
    line = json.dumps({"event": event, "time": now, **facts}, ensure_ascii=False)
    try:
        if run_dir.exists() and not is_superseded(run_dir):
            _append_line(path, line.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        if path not in _reported:
            _reported.add(path)
            print_warning(
                f"warning: {path}: cannot be written ({error.strerror}): what the time of this run went to will be "
                "incomplete"
            )
    return Event(event, now, facts)


def read(run_dir: Path) -> List[Event]:
    """Return the events of a run, in the order in which they were written.

    Lines that are not events are skipped, as the last one may be after a crash. A run of an earlier version has none.
    """
    try:
        lines = (run_dir / FILE).read_bytes().splitlines()
    except OSError:
        return []
    return [event for event in map(_parse, lines) if event.kind]


def _append_line(path: Path, line: bytes) -> None:
    """Write a line in a single call, after the end of a line that a crash has cut off."""
    number = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        size = os.fstat(number).st_size
        is_cut_off = size > 0 and os.pread(number, 1, size - 1) != b"\n"
        os.write(number, (b"\n" if is_cut_off else b"") + line + b"\n")
    finally:
        os.close(number)


def _parse(line: bytes) -> Event:
    """Return the event of a line; one without a kind if it is none."""
    try:
        facts = json.loads(line)
        event = Event(str(facts.pop("event")), float(facts.pop("time")), facts)
    except (ValueError, TypeError, KeyError, AttributeError):
        return Event("", 0.0, {})
    return event if math.isfinite(event.time) else Event("", 0.0, {})
