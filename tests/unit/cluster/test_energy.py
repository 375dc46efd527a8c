"""Energy is read from powercap files and from a stub of NVML, and is unknown for a stated reason elsewhere."""

import math
import shutil
import subprocess
from pathlib import Path
from typing import Callable

import pytest

from lstm_dist.cluster import energy
from lstm_dist.cluster.energy import Counter, Gauge, Meter, Source, gpu, packages, unknown

RANGE = 1_000_000  # microjoules


def zone(powercap: Path, folder: str, name: str, microjoules: int) -> Path:
    """Write a zone as the kernel shows it, and return the file of its counter."""
    path = powercap / folder
    path.mkdir(parents=True)
    for file, text in (("name", name), ("energy_uj", microjoules), ("max_energy_range_uj", RANGE)):
        (path / file).write_text(f"{text}\n")
    return path / "energy_uj"


def test_energy_is_that_of_the_packages(tmp_path: Path):
    files = [
        zone(tmp_path, "intel-rapl:0", "package-0", 100_000),
        zone(tmp_path, "intel-rapl:1", "package-1", 200_000),
        zone(tmp_path, "intel-rapl:0:0", "core", 0),  # parts of a package
        zone(tmp_path, "intel-rapl:0:1", "dram", 0),
        zone(tmp_path, "intel-rapl:2", "psys", 0),  # the whole board
        zone(tmp_path, "intel-rapl-mmio:0", "package-0", 0),  # the same package, by another way
    ]
    (tmp_path / "intel-rapl").mkdir()  # the driver itself
    meter = Meter(packages(tmp_path))
    assert meter.describe() == ["RAPL of 2 packages"]
    assert meter.joules() == (0, 0)
    for file, microjoules in zip(files, (350_000, 700_000, 1, 1, 1, 1)):
        file.write_text(str(microjoules))
    assert meter.joules() == (pytest.approx(0.25 + 0.5), 0)


def test_counter_continues_at_zero_after_its_range(tmp_path: Path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 900_000)
    gauge = Gauge(packages(tmp_path))
    for value, joules in ((950_000, 0.05), (20_000, 0.12), (30_000, 0.13), (10_000, 1.11)):
        file.write_text(str(value))
        assert gauge.joules() == pytest.approx(joules)


def test_counters_are_read_before_they_can_pass_their_range_twice(monkeypatch: pytest.MonkeyPatch):
    now, value = [0.0], [0]
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    gauge = Gauge(Source((Counter(lambda: value[0] % RANGE, RANGE),), "simulated", True))
    for _ in range(1000):  # 1 kJ in 10000 s, with a counter that passes its range every 100 s
        now[0] += 10
        value[0] += 100_000
        gauge.keep_up()
    assert gauge.joules() == pytest.approx(100)


def test_counters_are_not_read_in_every_step(monkeypatch: pytest.MonkeyPatch):
    now, reads = [0.0], []
    monkeypatch.setattr(energy.time, "monotonic", lambda: now[0])
    gauge = Gauge(Source((Counter(lambda: len(reads) if reads.append(0) else 0, RANGE),), "simulated", True))
    for _ in range(1000):
        now[0] += 0.05
        gauge.keep_up()
    assert len(reads) == 2, "one at the start, and one in 50 s"


def test_machine_without_counters_is_named(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0:0", "core", 0)
    for folder in (tmp_path, tmp_path / "absent"):
        meter = Meter(packages(folder))
        assert meter.describe()[0].startswith(f"no RAPL counters: no packages in {folder} (a virtual machine or ")
        assert math.isnan(meter.joules()[0])


def test_counter_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    read = Path.read_text

    def refuse(self: Path, *how: str) -> str:
        if self == file:
            raise PermissionError(13, "Permission denied", str(self))
        return read(self, *how)

    monkeypatch.setattr(Path, "read_text", refuse)  # root, who may run the tests, could read any file
    source = packages(tmp_path)
    assert source.text == f"permission denied: {file} (allow it on every host, with `chmod a+r` as root)"
    assert not source.is_known


def test_counter_without_a_number_is_named(tmp_path: Path):
    zone(tmp_path, "intel-rapl:0", "package-0", 0).write_text("many\n")
    assert packages(tmp_path) == unknown(f"RAPL counters cannot be read: {tmp_path}/intel-rapl:0")


def test_counter_without_a_range_is_named(tmp_path: Path):
    (zone(tmp_path, "intel-rapl:0", "package-0", 0).parent / "max_energy_range_uj").write_text("0\n")
    assert packages(tmp_path) == unknown(f"RAPL counters cannot be read: {tmp_path}/intel-rapl:0")


def test_energy_is_unknown_if_a_counter_is_gone_at_once(tmp_path: Path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    source = packages(tmp_path)
    file.unlink()
    assert math.isnan(Meter(source).joules()[0])


def test_energy_is_unknown_after_a_counter_is_gone(tmp_path: Path):
    file = zone(tmp_path, "intel-rapl:0", "package-0", 0)
    meter = Meter(packages(tmp_path))
    file.unlink()
    assert math.isnan(meter.joules()[0])
    file.write_text("500000")
    assert math.isnan(meter.joules()[0]), "what it has counted in between is unknown"


def test_worker_that_accounts_for_nothing_adds_nothing():
    meter = Meter()
    assert (meter.joules(), meter.describe()) == ((0, 0), [])


Compile = Callable[[str], str]


@pytest.fixture
def compiled(tmp_path: Path) -> Compile:
    """Return a function that compiles a stub of NVML and returns its file."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("the stub of libnvidia-ml.so.1 needs a C compiler, and there is none")

    def compile_stub(source: str) -> str:
        (tmp_path / "nvml.c").write_text(source)
        library = str(tmp_path / energy.NVML)
        command = [str(compiler), "-shared", "-fPIC", "-o", library, str(tmp_path / "nvml.c")]
        subprocess.run(command, check=True, timeout=60)
        return library

    return compile_stub


# Every reading of GPU 41 counts a joule; its counter has passed 32 bits. GPU 42 has no counter.
STUB = r"""
#include <stddef.h>
#include <string.h>
static unsigned long long count = 5000000000ULL;
static char device;
int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *bus, void **found) {
    *found = strcmp(bus, "0000:41:00.0") == 0 ? &device : NULL;
    return strcmp(bus, "0000:43:00.0") == 0 ? 6 : 0;
}
int nvmlDeviceGetTotalEnergyConsumption(void *found, unsigned long long *millijoules) {
    *millijoules = count += 1000;
    return found == &device ? 0 : 3;
}
const char *nvmlErrorString(int status) { return status == 3 ? "Not Supported" : "Not Found"; }
"""


def test_energy_of_a_gpu_is_read_by_its_bus_id(compiled: Compile):
    meter = Meter(gpu=gpu("0000:41:00.0", compiled(STUB)))
    assert meter.describe() == ["NVML"]
    assert [meter.joules() for _ in range(3)] == [(0, 1), (0, 2), (0, 3)]


@pytest.mark.parametrize(("bus", "reason"), [("0000:42:00.0", "Not Supported"), ("0000:43:00.0", "Not Found")])
def test_gpu_without_a_counter_is_named(compiled: Compile, bus: str, reason: str):
    meter = Meter(gpu=gpu(bus, compiled(STUB)))
    assert meter.describe() == [f"no NVML counters: {reason} (GPU {bus})"]
    assert math.isnan(meter.joules()[1])


def test_driver_without_the_function_and_machine_without_the_driver_are_named(compiled: Compile, tmp_path: Path):
    old = gpu("0000:41:00.0", compiled("int nvmlInit_v2(void) { return 0; }"))
    assert old.text.startswith("no NVML counters: ")
    assert "nvmlDeviceGetHandleByPciBusId_v2" in old.text
    absent = gpu("0000:41:00.0", str(tmp_path / "absent.so"))
    assert absent.text.startswith("no NVML counters: ")
    assert "absent.so" in absent.text
    assert [old.is_known, absent.is_known] == [False, False]
