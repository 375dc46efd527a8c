"""Results of checks, and their report as text."""

import sys
from typing import List, NamedTuple

OK, WARN, FAIL = "ok", "warn", "FAIL"
_COLOURS = {OK: "\033[32m", WARN: "\033[33m", FAIL: "\033[1;31m"}
SET_UP = "run launch/setup.sh, and start .venv/bin/python"


class CheckResult(NamedTuple):
    """The result of one check.

    Attributes:
        status: OK, WARN, or FAIL if it would break a run.
        topic: what was checked.
        text: what was found.
        remedy: what to do about it; empty if there is nothing to do.
    """

    status: str
    topic: str
    text: str
    remedy: str = ""


class CheckReport:
    """The results of all checks of one worker, in order."""

    def __init__(self) -> None:
        self.results: List[CheckResult] = []

    def ok(self, topic: str, text: str) -> None:
        """Add the result of a check that has passed."""
        self.results.append(CheckResult(OK, topic, text))

    def warn(self, topic: str, text: str, remedy: str = "") -> None:
        """Add a result that would make a run slow or might break it."""
        self.results.append(CheckResult(WARN, topic, text, remedy))

    def fail(self, topic: str, text: str, remedy: str = "") -> None:
        """Add a result that would break a run."""
        self.results.append(CheckResult(FAIL, topic, text, remedy))

    def count(self, status: str) -> int:
        """Return the number of results with this status."""
        return sum(result.status == status for result in self.results)

    def versions(self) -> str:
        """Return topic and version of every check that has passed; a text begins with a version and a comma."""
        return ", ".join(f"{r.topic} {r.text.split(',')[0]}" for r in self.results if r.status == OK)

    def render(self) -> str:
        """Return the results as aligned lines, in colour on a terminal, with a summary at the end."""
        lines = []
        for status, topic, text, remedy in self.results:
            label = f"{status:<4}"
            if sys.stdout.isatty():
                label = f"{_COLOURS[status]}{label}\033[0m"
            lines.append(f"{label}  {topic:<9}  {text}")
            if remedy:
                lines.append(f"{'':17}-> {remedy}")
        errors, warnings = self.count(FAIL), self.count(WARN)
        summary = f"{_plural(errors, 'error')}, {_plural(warnings, 'warning')}"
        return "\n".join([*lines, summary if errors or warnings else "no errors, no warnings"])


def _plural(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
