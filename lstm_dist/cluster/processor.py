"""This machine's processor: its name, and which instructions it has."""

from contextlib import suppress
from pathlib import Path
from typing import Dict, FrozenSet, NamedTuple

CPUINFO = Path("/proc/cpuinfo")


class Processor(NamedTuple):
    """A processor as Linux describes it.

    Attributes:
        name: of the model, or "unknown CPU".
        vendor: such as GenuineIntel or AuthenticAMD; empty for other architectures than x86.
        instructions: the sets of instructions that it has, such as avx2; empty for other architectures than x86.
    """

    name: str
    vendor: str
    instructions: FrozenSet[str]


def this_processor(cpuinfo: Path = CPUINFO) -> Processor:
    """Return this machine's processor, from the first entry of /proc/cpuinfo; an unknown one if that is missing."""
    facts: Dict[str, str] = {}
    with suppress(OSError), open(cpuinfo, encoding="utf-8") as lines:
        for line in lines:
            if not line.strip():
                break  # the end of the first entry
            name, _, value = line.partition(":")
            facts.setdefault(name.strip(), value.strip())
    instructions = frozenset(facts.get("flags", "").split())
    return Processor(facts.get("model name", "unknown CPU"), facts.get("vendor_id", ""), instructions)
