"""What Linux says about processors of several kinds."""

from pathlib import Path

from lstm_dist.cluster.processor import this_processor

EPYC = """\
processor\t: 0
vendor_id\t: AuthenticAMD
model name\t: AMD EPYC 9554 64-Core Processor
flags\t\t: fpu fma avx2 avx512f

processor\t: 1
vendor_id\t: AuthenticAMD
model name\t: another
flags\t\t: fpu
"""
ARM = "processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n"


def test_first_processor_is_described(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(EPYC)
    expected = ("AMD EPYC 9554 64-Core Processor", "AuthenticAMD", {"fpu", "fma", "avx2", "avx512f"})
    assert this_processor(path) == expected


def test_missing_description_is_an_unknown_processor(tmp_path: Path) -> None:
    assert this_processor(tmp_path / "cpuinfo") == ("unknown CPU", "", frozenset())


def test_other_architectures_have_no_known_instructions(tmp_path: Path) -> None:
    path = tmp_path / "cpuinfo"
    path.write_text(ARM)
    assert this_processor(path) == ("unknown CPU", "", frozenset())
