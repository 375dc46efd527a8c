"""The kernel of MXNet's OpenBLAS: by the processor's instructions, unless the user has named one."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Optional

import pytest

from lstm_dist.cluster import openblas
from lstm_dist.cluster.openblas import VARIABLE, fastest_kernel, kernel_in_use, named_kernel
from lstm_dist.cluster.processor import Processor, this_processor
from tests.support.programs import ROOT

SANDY_BRIDGE = "sse4_2 avx"
HASWELL = f"{SANDY_BRIDGE} fma avx2"
SKYLAKE = f"{HASWELL} avx512f avx512bw avx512vl avx512dq"


def processor(vendor: str, instructions: str) -> Processor:
    return Processor("any", vendor, frozenset(instructions.split()))


@pytest.mark.parametrize(
    ("vendor", "instructions", "kernel"),
    [
        ("GenuineIntel", "sse3", ""),
        ("GenuineIntel", "sse4_2", "Nehalem"),
        ("GenuineIntel", SANDY_BRIDGE, "Sandybridge"),
        ("GenuineIntel", f"{SANDY_BRIDGE} avx2", "Sandybridge"),  # a virtual machine may hide fma
        ("GenuineIntel", HASWELL, "Haswell"),
        ("GenuineIntel", SKYLAKE, "Haswell"),  # this OpenBLAS has no kernel for AVX-512
        ("AuthenticAMD", SANDY_BRIDGE, ""),  # Bulldozer or Piledriver: OpenBLAS knows both
        ("AuthenticAMD", HASWELL, "Zen"),
        ("HygonGenuine", SKYLAKE, "Zen"),
        ("CentaurHauls", HASWELL, "Haswell"),
        ("", "", ""),  # 64-bit Arm
    ],
)
def test_kernel_follows_from_the_instructions(vendor: str, instructions: str, kernel: str) -> None:
    assert fastest_kernel(processor(vendor, instructions)) == kernel


@pytest.mark.parametrize(
    ("given", "seen"),
    [(None, "Haswell"), ("", "Haswell"), ("Nehalem", "Nehalem"), ("No such kernel", "No such kernel")],
)
def test_kernel_is_named_only_meanwhile_and_the_users_wins(
    monkeypatch: pytest.MonkeyPatch, given: Optional[str], seen: str
) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    if given is not None:
        monkeypatch.setenv(VARIABLE, given)
    with named_kernel(processor("GenuineIntel", SKYLAKE)):
        assert os.environ[VARIABLE] == seen
    assert os.environ.get(VARIABLE) == given


def test_kernel_is_not_named_to_another_blas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setattr(openblas, "bundled_library", lambda: None)
    with named_kernel(processor("GenuineIntel", SKYLAKE)):
        assert VARIABLE not in os.environ
    assert kernel_in_use() == ""


def test_library_that_is_not_loaded_has_no_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(openblas, "bundled_library", lambda: tmp_path / "libopenblas.so.0")
    assert kernel_in_use() == ""


CODE = """
import os
from lstm_dist.cluster.bootstrap import prepare_process
from lstm_dist.cluster.openblas import VARIABLE, kernel_in_use
before = os.environ.get(VARIABLE)
assert kernel_in_use() == ""
prepare_process()
assert os.environ.get(VARIABLE) == before
print(kernel_in_use())
"""


@pytest.mark.slow
@pytest.mark.parametrize("given", [None, "Nehalem"])
def test_process_runs_the_kernel_for_its_processor_or_the_users(given: Optional[str]) -> None:
    environ = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if given:
        environ[VARIABLE] = given
    printed = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environ, check=True, timeout=120, stdout=subprocess.PIPE, text=True
    ).stdout
    expected = given or fastest_kernel(this_processor())
    if not expected:
        pytest.skip("OpenBLAS chooses itself on this processor")
    assert printed.strip() == expected
