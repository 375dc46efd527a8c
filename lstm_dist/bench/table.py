"""Format the measurements as Markdown tables."""

from typing import Dict, List, Mapping, Sequence

from tabulate import tabulate

from lstm_dist.bench.case import Case
from lstm_dist.bench.interleaved import Timing


def of_implementations(timings: Sequence[Timing]) -> str:
    """Format one row per implementation on one worker; the first is the reference."""
    rows = []
    for timing in timings:
        low, median, high = timing.quartiles_ms()
        rows.append(
            {
                "implementation": timing.entry.implementation,
                "ms per step": _ms(median),
                "quartiles": f"{_ms(low)} - {_ms(high)}",
                "chars/s": f"{timing.chars_per_sec:,.0f}",
                f"time / {timings[0].entry.implementation}": f"{timing.time_ratio(timings[0]):.2f}",
                "memory, MB": f"{timing.resident_bytes / 1e6:.0f}",
            }
        )
    return markdown(rows)


def _ms(value: float) -> str:
    """Format milliseconds with a tenth, or with three digits for the short steps of a GPU."""
    return f"{value:.1f}" if value >= 10 else f"{value:.3g}"


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
                "implementation": timing.entry.implementation,
                "workers": str(case.workers),
                "controller": timing.entry.controller if case.workers > 1 else "",
                "streams": str(case.streams),
                "MB sent per step": _sent(timing),
                "ms per step": f"{median:.1f}",
                "quartiles": f"{low:.1f} - {high:.1f}",
                "chars/s": f"{timing.chars_per_sec:,.0f}",
                "speedup": f"{single.time_ratio(timing):.2f}",
            }
        )
    return markdown(rows)


def _sent(timing: Timing) -> str:
    """Return the size of the gradients that a worker sends, of all parameters or of those that a batch touches."""
    case, implementation = timing.entry.case, timing.entry.implementation
    if case.workers == 1 or implementation == "ours, without exchange":
        return ""
    sends_rows = implementation in ("ours", "ours, timed")
    return f"{4 * (case.exchange.numbers if sends_rows else case.exchange.dense_numbers) / 1e6:.2f}"


def of_sizes(timings: Sequence[Timing], base: Case) -> str:
    """Format one row per case: microseconds per character of each implementation."""
    rows: Dict[Case, Dict[str, str]] = {}
    for timing in timings:
        case = timing.entry.case
        changed = [f"{name} {size}" for name, size in case._asdict().items() if size != getattr(base, name)]
        row = rows.setdefault(case, {"µs per character": ", ".join(changed) or "base sizes"})
        row[timing.entry.implementation] = f"{timing.microseconds_per_char:.1f}"
    return markdown(list(rows.values()))


def of_operators(operators: Mapping[str, Sequence[float]]) -> str:
    """Format one row per operator, longest first; MXNet names a fused operator after all of its parts."""
    rows = []
    for name, (calls, milliseconds) in sorted(operators.items(), key=lambda item: -item[1][1]):
        if milliseconds >= 0.1:
            rows.append(
                {"operator": _shortened(name), "calls per step": f"{calls:g}", "ms per step": f"{milliseconds:.2f}"}
            )
    return markdown(rows)


def _shortened(name: str) -> str:
    return name if len(name) <= 60 else f"{name[:57]}..."


def markdown(rows: List[Dict[str, str]]) -> str:
    """Format dictionaries of equal keys as the rows of a Markdown table."""
    return tabulate(rows, headers="keys", tablefmt="github", disable_numparse=True, stralign="right")
