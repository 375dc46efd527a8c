"""Format the measurements as tables for reading and for Markdown."""

from typing import Dict, List, Mapping, Sequence

from tabulate import tabulate

from lstm_dist.bench.case import Case
from lstm_dist.bench.interleaved import Timing


def of_contestants(timings: Sequence[Timing]) -> str:
    """Format one row per implementation on one worker; the first is the reference."""
    rows = []
    for timing in timings:
        low, median, high = timing.quartiles_ms()
        rows.append(
            {
                "": timing.entry.contestant,
                "ms a step": f"{median:.1f}",
                "quartiles": f"{low:.1f} - {high:.1f}",
                "chars/s": f"{timing.chars_per_sec:,.0f}",
                f"times {timings[0].entry.contestant}": f"{timing.times_as_long_as(timings[0]):.2f}",
                "memory, MB": f"{timing.resident_bytes / 1e6:.0f}",
            }
        )
    return _markdown(rows)


def of_scaling(timings: Sequence[Timing]) -> str:
    """Format one row per entry; speedups are relative to the closest row above with one worker."""
    rows, single = [], timings[0]
    for timing in timings:
        case = timing.entry.case
        if case.workers == 1:
            single = timing
        low, median, high = timing.quartiles_ms()
        rows.append(
            {
                "": timing.entry.contestant,
                "workers": str(case.workers),
                "over": timing.entry.controller if case.workers > 1 else "",
                "streams": str(case.streams),
                "ms a step": f"{median:.1f}",
                "quartiles": f"{low:.1f} - {high:.1f}",
                "chars/s": f"{timing.chars_per_sec:,.0f}",
                "speedup": f"{single.times_as_long_as(timing):.2f}",
            }
        )
    return _markdown(rows)


def of_sizes(timings: Sequence[Timing], base: Case) -> str:
    """Format one row per case: microseconds per character of each implementation."""
    rows: Dict[Case, Dict[str, str]] = {}
    for timing in timings:
        case = timing.entry.case
        changed = [f"{name} {size}" for name, size in case._asdict().items() if size != getattr(base, name)]
        row = rows.setdefault(case, {"us a character": ", ".join(changed) or "the document's sizes"})
        row[timing.entry.contestant] = f"{timing.microseconds_per_char:.1f}"
    return _markdown(list(rows.values()))


def of_operators(operators: Mapping[str, Sequence[float]]) -> str:
    """Format one row per operator, longest first; MXNet names fused operators after all their parts."""
    rows = []
    for name, (calls, milliseconds) in sorted(operators.items(), key=lambda item: -item[1][1]):
        if milliseconds >= 0.1:
            rows.append(
                {"operator": _shortened(name), "calls a step": f"{calls:g}", "ms a step": f"{milliseconds:.2f}"}
            )
    return _markdown(rows)


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


def _markdown(rows: List[Dict[str, str]]) -> str:
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="right")
