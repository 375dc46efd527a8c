"""Format numbers and text for reports."""

import math
from typing import Sequence

NO_BREAK = "\N{NO-BREAK SPACE}"


def number(value: float, digits: int = 0) -> str:
    """Format with thousands separators, or as a dash if not finite."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def percent(value: float, digits: int = 1) -> str:
    """Format a fraction as a percentage; a no-break space keeps the sign on the same line."""
    return f"{100 * value:.{digits}f}{NO_BREAK}%" if math.isfinite(value) else "–"


def signed(value: float, digits: int = 1) -> str:
    """Format with a sign, except for zero."""
    text = number(abs(value), digits)
    if text == number(0, digits) or not math.isfinite(value):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def interval(low: float, high: float, digits: int = 0) -> str:
    """Format as "low to high", or as a dash if the interval is unknown or empty (the reference)."""
    return f"{number(low, digits)} to {number(high, digits)}" if math.isfinite(low + high) and low < high else "–"


def milliseconds(seconds: float, digits: int = 2) -> str:
    """Format seconds as milliseconds, without the unit, which is in the column heading."""
    return number(seconds * 1000, digits)


def size(count: float) -> str:
    """Format a number of bytes with decimal units."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g} B"


def listed(items: Sequence[str]) -> str:
    """Join as "one, two and three"."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def capitalized(text: str) -> str:
    """Capitalize the first letter."""
    return text[:1].upper() + text[1:]


def counted(count: int, noun: str) -> str:
    """Format as "1 worker" or "2 workers"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def decimals(value: float, significant: int = 3) -> int:
    """Return how many decimal places show this many significant digits of a value."""
    return max(0, significant - 1 - math.floor(math.log10(abs(value)))) if value and math.isfinite(value) else 0
