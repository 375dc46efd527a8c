"""Numbers as they are spelt, and sentences that are made of them."""

import math
from typing import Sequence

NO_BREAK = "\N{NO-BREAK SPACE}"


def number(value: float, digits: int = 0) -> str:
    """With commas; a dash where there is none."""
    return f"{value:,.{digits}f}" if math.isfinite(value) else "–"


def percent(value: float, digits: int = 1) -> str:
    """Of a fraction, with its sign, from which no line end parts it."""
    return f"{100 * value:.{digits}f}{NO_BREAK}%" if math.isfinite(value) else "–"


def signed(value: float, digits: int = 1) -> str:
    """With its sign, and none before zero."""
    text = number(abs(value), digits)
    if text == number(0, digits) or not math.isfinite(value):
        return text
    return f"{'−' if value < 0 else '+'}{text}"


def interval(low: float, high: float, digits: int = 0) -> str:
    """From, to; a dash where one measurement gives none, or it is the reference of the others."""
    return f"{number(low, digits)} to {number(high, digits)}" if math.isfinite(low + high) and low < high else "–"


def milliseconds(seconds: float, digits: int = 2) -> str:
    """Without the unit, which stands in the heading."""
    return number(seconds * 1000, digits)


def size(count: float) -> str:
    """Bytes, in powers of ten."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:g} B"


def listed(items: Sequence[str]) -> str:
    """One, two and three."""
    return " and ".join(filter(None, [", ".join(items[:-1]), *items[-1:]]))


def capital(text: str) -> str:
    """As a sentence begins."""
    return text[:1].upper() + text[1:]


def counted(count: int, noun: str) -> str:
    """1 worker, 2 workers."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
