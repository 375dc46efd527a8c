"""The report of a run: what its time went to, its attempts, and their course over time."""

from math import inf
from pathlib import Path
from typing import List, NamedTuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.report.document import Cell, Report, Row, Section, Table
from lstm_dist.experiments.report.formatters import capitalized, counted, listed, number, percent
from lstm_dist.experiments.timeline_figures import steps_figure, workers_figure
from lstm_dist.files import is_claimed
from lstm_dist.run import timeline
from lstm_dist.run.goodput import PARTS, AttemptCourse, Goodput, History, duration
from lstm_dist.run.phase_clock import STARTING, STEPS
from lstm_dist.run.status import STATUS, read_status
from lstm_dist.run.timeline import END, FILE, Event

RUNNING, KILLED = "running", "killed"
_REASONS = 20  # number of ends whose reasons are listed
_LONG = 30  # rows of a table from which on the page shows only its caption until it is opened


class RunHistory(NamedTuple):
    """The history of a run until now.

    Attributes:
        history: its attempts; the last one is complete.
        state: of the last attempt: running, killed, or that of its END.
        reasons: why each attempt ended, according to the program that started it or else to its root; may be empty.
        others: other events that are not counted, such as the loss of a host.
    """

    history: History
    state: str
    reasons: List[str]
    others: List[Event]


def is_run(folder: Path) -> bool:
    """Return whether a folder is the directory of a run."""
    return any((folder / name).exists() for name in (FILE, STATUS))


def read(run_dir: Path) -> RunHistory:
    """Read the history of a run, also of one that is running or was killed.

    Raises:
        UserError: if it has no timeline.
    """
    events = timeline.read(run_dir)
    history = History(events)
    if not history.attempts:
        raise UserError(
            f"{run_dir}: has no attempts in {FILE}, as the runs of earlier versions: what its time went to is unknown",
            ExitStatus.NO_INPUT,
        )
    last, status = history.attempts[-1], read_status(run_dir)
    state = last.state
    if not state:
        state = last.state = RUNNING if is_claimed(run_dir) else KILLED
        is_known = isinstance(status, dict) and status.get("began") == last.began
        if is_known:
            last.advance(last.began, status)
        if state == KILLED:
            history.add(Event(END, last.began, {"state": KILLED}))
    known = {timeline.START, timeline.COMMIT, timeline.END, timeline.WAITING, timeline.FAILURE}
    others = [event for event in events if event.kind not in known]
    return RunHistory(history, state, _reasons(history.attempts, events), others)


def _reasons(attempts: List[AttemptCourse], events: List[Event]) -> List[str]:
    """Return why each attempt ended; a later attempt that failed before it trained has no course of its own."""
    ends = [*(attempt.began for attempt in attempts[1:]), inf]
    failures = [event for event in events if event.kind == timeline.FAILURE]
    found = []
    for attempt, end in zip(attempts, ends):
        lines = [str(event.facts.get("line", "")) for event in failures if attempt.began <= event.time < end]
        found.append(lines[0] if lines else attempt.reason)
    return found


def report(run_dir: Path) -> Report:
    """Return the report of a run.

    Raises:
        UserError: if it has no timeline.
    """
    found = read(run_dir)
    attempts, goodput = found.history.attempts, found.history.goodput()
    facts = [
        ("run", str(run_dir)),
        ("state", f"{found.state}, after step {attempts[-1].step:,}"),
        ("workers", _ranges([attempt.workers for attempt in attempts])),
        ("attempts", str(len(attempts))),
    ]
    sections = [_time_section(goodput), _attempts_section(attempts, found.reasons)]
    if found.others:
        sections.append(_events_section(found.others, attempts[0].began))
    return Report(f"Goodput of {run_dir.name}", _summary(goodput), [], facts, sections)


def _summary(goodput: Goodput) -> str:
    """Return the first paragraph: the goodput, and the largest losses."""
    losses = sorted((name for name in PARTS if name != STEPS), key=goodput.share, reverse=True)
    shown = [f"{PARTS[name]} ({percent(goodput.share(name))})" for name in losses[:3] if goodput.share(name) >= 0.0005]
    rest = f" Of the rest, most went to {listed(shown)}." if shown else ""
    return (
        f"{percent(goodput.fraction)} of the {duration(goodput.wall)} since the first start went into steps that count."
        f"{rest}"
    )


def _time_section(goodput: Goodput) -> Section:
    rows = [
        Row(
            [
                Cell(capitalized(name), {"part": part}),
                Cell(number(goodput.parts[part], 1), {"seconds": goodput.parts[part]}),
                Cell(percent(goodput.share(part)), {"share": goodput.share(part)}),
            ]
        )
        for part, name in PARTS.items()
    ]
    total = [Cell("Since the first start", {"part": "all"}), Cell(number(goodput.wall, 1), {"seconds": goodput.wall})]
    rows.append(Row([*total, Cell(percent(1.0), {"share": 1.0})]))
    table = Table("Seconds since the first start", ["part", "seconds", "share"], rows, "goodput.csv")
    notes = [
        "A step counts unless a later attempt repeats it, because the attempt that did it ended before its next "
        f"checkpoint: {counted(goodput.steps_lost, 'step')} did not count. The time between two attempts includes the "
        "time until the end of the first was noticed, and attempts that ended before they trained."
    ]
    return Section("time", "Where the time went", [], [table], notes=notes)


def _attempts_section(attempts: List[AttemptCourse], reasons: List[str]) -> Section:
    columns = ["attempt", "began", "workers", "steps", "lasted", "starting, s", "lost, steps", "lost, s", "end"]
    first = attempts[0].began
    rows = [
        _attempt_row(place, attempt, reason, first) for place, (attempt, reason) in enumerate(zip(attempts, reasons), 1)
    ]
    table = Table("Attempts", columns, rows, "attempts.csv", collapsed=len(rows) > _LONG)
    ends = [(place, end_of(attempt), reason) for place, (attempt, reason) in enumerate(zip(attempts, reasons), 1)]
    ends = [end for end in ends if end[-1]]
    notes = [f"Attempt {place} {end}: {_first_sentence(reason)}." for place, end, reason in ends[-_REASONS:]]
    if len(ends) > _REASONS:
        notes.insert(0, f"The reasons of the last {_REASONS} of {len(ends)} ends:")
    paragraphs = ["The times of beginning are hours, minutes and seconds since the first attempt began."]
    pictures = [workers_figure(attempts), steps_figure(attempts)]
    return Section("attempts", "Attempts over time", paragraphs, [table], [pictures], notes)


def _attempt_row(place: int, attempt: AttemptCourse, reason: str, first: float) -> Row:
    lasted = attempt.ended - attempt.began
    facts = {"first_step": attempt.first_step, "last_step": attempt.step}
    cells = [
        Cell(str(place), {"attempt": place}),
        Cell(_clock(attempt.began - first), {"began": attempt.began - first}),
        Cell(str(attempt.workers), {"workers": attempt.workers}),
        Cell(f"{attempt.first_step:,} to {attempt.step:,}", facts),
        Cell(duration(lasted), {"seconds": lasted}),
        Cell(number(attempt.seconds[STARTING], 1), {"starting": attempt.seconds[STARTING]}),
        Cell(number(attempt.lost_steps), {"lost_steps": attempt.lost_steps}),
        Cell(number(attempt.lost_seconds, 1), {"lost_seconds": attempt.lost_seconds}),
        Cell(end_of(attempt), {"end": end_of(attempt), "pause_before": attempt.pause, "reason": reason}),
    ]
    return Row(cells)


def _events_section(events: List[Event], first: float) -> Section:
    rows = [
        Row(
            [
                Cell(_clock(event.time - first), {"time": event.time - first}),
                Cell(event.kind, {"event": event.kind}),
                Cell(_describe(event), {"facts": str(event.facts)}),
            ]
        )
        for event in events
    ]
    table = Table("Events between the attempts", ["time", "event", ""], rows, "events.csv", collapsed=len(rows) > _LONG)
    return Section("events", "Events", [], [table])


def _describe(event: Event) -> str:
    """Return the line that the user saw, or else all facts."""
    facts = ", ".join(f"{name} {value}" for name, value in event.facts.items())
    return str(event.facts.get("line", facts))


def end_of(attempt: AttemptCourse) -> str:
    """Return how an attempt ended; that of one whose end was not recorded is known from its successor only."""
    return attempt.state or KILLED


def _first_sentence(reason: str) -> str:
    """Return the beginning of a reason, as those of libraries are long."""
    return reason.split(". ")[0].rstrip(".")


def _clock(seconds: float) -> str:
    """Format seconds as hours, minutes and seconds."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole % 3600 // 60:02}:{whole % 60:02}"


def _ranges(workers: List[int]) -> str:
    """Return the numbers of workers, such as 2, or 2 to 6."""
    least, most = min(workers), max(workers)
    return str(most) if least == most else f"{least} to {most}"
