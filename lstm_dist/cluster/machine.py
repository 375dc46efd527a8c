"""What Linux tells of this machine: kernel, clock governor, NUMA nodes, GPU driver. What it does not tell is None."""

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import Any, Collection, Dict, List, Optional, Set

from lstm_dist.cluster.processor import this_processor

_ROOT = Path("/")


def describe_machine(root: Path = _ROOT) -> Dict[str, Any]:
    """Return the facts of this machine that are the same for all of its workers.

    Args:
        root: of the file system, in which the facts are looked up.

    Returns:
        `kernel`, `processor`, `governor` (how the clock of its cores is chosen; several if they differ), `numa_nodes`
        (their number) and `gpu_driver` (the version of NVIDIA's).
    """
    return {
        "kernel": os.uname().release,  # in Python 3.8 that of `platform` forks
        "processor": this_processor(root / "proc/cpuinfo").name,
        "governor": _governor(root),
        "numa_nodes": len(_numa_nodes(root)) or None,
        "gpu_driver": _gpu_driver(root),
    }


def numa_nodes_of(cores: Collection[int], root: Path = _ROOT) -> Optional[List[int]]:
    """Return the numbers of the NUMA nodes that have some of these cores; None if Linux does not tell."""
    nodes = _numa_nodes(root)
    return sorted(number for number, members in nodes.items() if not members.isdisjoint(cores)) or None


def _governor(root: Path) -> Optional[str]:
    found: Set[str] = set()
    for path in root.glob("sys/devices/system/cpu/cpu[0-9]*/cpufreq/scaling_governor"):
        with suppress(OSError):  # the core is switched off
            found.add(path.read_text().strip())
    return ", ".join(sorted(found)) or None


def _numa_nodes(root: Path) -> Dict[int, Set[int]]:
    """Return the cores of each NUMA node, by its number."""
    nodes: Dict[int, Set[int]] = {}
    for path in root.glob("sys/devices/system/node/node[0-9]*/cpulist"):
        with suppress(OSError, ValueError):
            nodes[int(path.parent.name[len("node") :])] = _members(path.read_text())
    return nodes


def _members(text: str) -> Set[int]:
    """Return the numbers in a list of Linux, such as 0-3,8."""
    numbers: Set[int] = set()
    for part in filter(None, text.strip().split(",")):
        first, _, last = part.partition("-")
        numbers.update(range(int(first), int(last or first) + 1))
    return numbers


def _gpu_driver(root: Path) -> Optional[str]:
    with suppress(OSError):
        found = re.search(r"\s(\d+\.[\d.]+)\s", (root / "proc/driver/nvidia/version").read_text(errors="replace"))
        return found[1] if found else None
    return None
