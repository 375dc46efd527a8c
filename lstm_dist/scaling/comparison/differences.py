"""List what differs between two scaling experiments: settings, program, machine and versions."""

from typing import Any, List, NamedTuple, Sequence

from lstm_dist.scaling.records import JobRow, Rows
from lstm_dist.scaling.variation import Variation

_ORIGINS = {"commit": "commit", "code": "digest of the code", "hosts": "hosts", "cores": "cores", "devices": "devices"}


class Difference(NamedTuple):
    """A property with different values: its name, and the value in each experiment."""

    name: str
    first: str
    second: str


def differences(first: Rows, second: Rows) -> List[Difference]:
    """Return all differences; settings come first, then those of the program, then those of the machine."""
    return [*_settings(first, second), *_origins(first, second), *_machines(first, second)]


def _settings(first: Rows, second: Rows) -> List[Difference]:
    pair = [rows.experiment.varied(Variation()).model_dump() for rows in (first, second)]
    return [
        Difference(name.replace("_", " "), _text(pair[0][name]), _text(pair[1][name]))
        for name in pair[0]
        if pair[0][name] != pair[1][name]
    ]


def _origins(first: Rows, second: Rows) -> List[Difference]:
    """Return the fields of finished jobs that differ; the largest job counts for hosts and cores."""
    jobs = _finished(first), _finished(second)
    found = []
    for field, name in _ORIGINS.items():
        texts = [_values([getattr(job, field) for job in side if hasattr(job, field)]) for side in jobs]
        if texts[0] != texts[1]:
            found.append(Difference(name, *texts))
    return found


def _machines(first: Rows, second: Rows) -> List[Difference]:
    """Return one difference with the chips and versions that only one of the experiments has."""
    facts = [
        list(dict.fromkeys(fact for job in _finished(rows) for fact in job.machine.split(", ") if fact))
        for rows in (first, second)
    ]
    own = [", ".join(fact for fact in facts[k] if fact not in facts[1 - k]) for k in (0, 1)]
    return [Difference("machine and versions", own[0] or "–", own[1] or "–")] if any(own) else []


def _finished(rows: Rows) -> List[JobRow]:
    return [job for job in [*rows.train_rows, *rows.allreduce_rows] if job.state == "finished"]


def _values(values: Sequence[Any]) -> str:
    """Return the largest of numbers, or all distinct texts."""
    if values and isinstance(values[0], int):
        return str(max(values))
    return ", ".join(sorted({_text(value) for value in values})) or "unknown"


def _text(value: Any) -> str:
    if value is None:  # workers per node
        return "all"
    if isinstance(value, (list, tuple)):
        return " ".join(map(str, value)) or "none"
    return str(value) if value != "" else "unknown"
