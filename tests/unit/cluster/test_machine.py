"""What a folder like /sys and /proc tells of a machine, and that what it lacks is None."""

from pathlib import Path
from typing import Dict

import pytest

from lstm_dist.cluster.machine import describe_machine, numa_nodes_of

CPU, NODE, NVIDIA = "sys/devices/system/cpu", "sys/devices/system/node", "proc/driver/nvidia/version"
DRIVER = "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.183.01  Sun May 12 19:39:15 UTC 2024\nGCC version: 12.2\n"
OPEN = "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  550.90.07  Release Build\nGCC version:  gcc 12.3.0 \n"
TWO_SOCKETS = {f"{NODE}/node0/cpulist": "0-3,8-11\n", f"{NODE}/node1/cpulist": "4-7,12-15\n"}


def file_system(root: Path, files: Dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.mark.parametrize(("text", "version"), [(DRIVER, "535.183.01"), (OPEN, "550.90.07"), ("broken", None)])
def test_machine_is_described(tmp_path: Path, text: str, version: str):
    governors = {f"{CPU}/cpu{k}/cpufreq/scaling_governor": f"{word}\n" for k, word in enumerate(["schedutil"] * 3)}
    other = {f"{CPU}/cpu3/cpufreq/scaling_governor": "performance\n"}
    files = {**governors, **other, **TWO_SOCKETS, NVIDIA: text, "proc/cpuinfo": "model name : Abacus 9\n\n"}
    facts = describe_machine(file_system(tmp_path, files))
    assert facts.pop("kernel")
    assert facts == {
        "processor": "Abacus 9", "governor": "performance, schedutil", "numa_nodes": 2, "gpu_driver": version,
    }  # fmt: skip


def test_unknown_facts_are_none(tmp_path: Path):
    facts = describe_machine(tmp_path)
    assert (facts["governor"], facts["numa_nodes"], facts["gpu_driver"]) == (None, None, None)
    assert numa_nodes_of([0], tmp_path) is None


@pytest.mark.parametrize(("cores", "nodes"), [([0], [0]), ([7, 12], [1]), ([11, 4], [0, 1]), ([99], None)])
def test_nodes_of_cores(tmp_path: Path, cores: list, nodes: list):
    assert numa_nodes_of(cores, file_system(tmp_path, TWO_SOCKETS)) == nodes


def test_this_machine_is_described():
    assert describe_machine()["kernel"] == Path("/proc/sys/kernel/osrelease").read_text().strip()
