"""Counters of energy: of the processor packages of this host (RAPL), and of a GPU (NVML).

RAPL, which Intel's and AMD's processors have, is read through Linux's powercap files:
https://docs.kernel.org/power/powercap/powercap.html. NVML is a part of NVIDIA's driver.
"""

import ctypes
import time
from math import nan
from pathlib import Path
from typing import Callable, List, NamedTuple, Tuple

POWERCAP = Path("/sys/class/powercap")
NVML = "libnvidia-ml.so.1"

_NEVER = 2**64 * 1000  # microjoules; NVML's counter of 64 bits counts millijoules
_READ_EVERY = 30.0  # seconds; a counter of 65 kJ, the smallest in use, starts again after this time at 2 kW


class Counter(NamedTuple):
    """A counter of energy in microjoules.

    Attributes:
        read: returns its value; raises OSError if it cannot be read.
        range: after which it starts again at 0.
    """

    read: Callable[[], int]
    range: int


class Source(NamedTuple):
    """What tells the energy of a part of the machine.

    Attributes:
        counters: whose sum is the energy of the part; none if there is no such part, or nothing tells its energy.
        text: names the counters, or says why the energy is unknown; empty if there is no such part.
        is_known: whether the sum of the counters is the energy of the part.
    """

    counters: Tuple[Counter, ...]
    text: str
    is_known: bool


NOTHING = Source((), "", True)  # no part that this process accounts for


def unknown(reason: str) -> Source:
    """Return a source that tells nothing, for this reason."""
    return Source((), reason, False)


def packages(powercap: Path = POWERCAP) -> Source:
    """Return the counters of all processor packages of this host.

    Those of their parts (cores, memory) and of the whole board are left out, as they overlap with the packages.

    Args:
        powercap: folder of the powercap files.
    """
    found: List[Counter] = []
    for zone in sorted(powercap.glob("intel-rapl:*")):
        try:
            if not (zone / "name").read_text().startswith("package"):
                continue
            counter = Counter(_reader(zone / "energy_uj"), int((zone / "max_energy_range_uj").read_text()))
            is_readable = counter.read() >= 0 and counter.range > 0
        except PermissionError as error:
            return unknown(f"permission denied: {error.filename} (allow it on every host, with `chmod a+r` as root)")
        except (OSError, ValueError):
            is_readable = False
        if not is_readable:
            return unknown(f"RAPL counters cannot be read: {zone}")
        found.append(counter)
    if not found:
        return unknown(
            f"no RAPL counters: no packages in {powercap} (a virtual machine or container, a processor without RAPL, "
            "or the kernel module intel_rapl_msr is not loaded)"
        )
    return Source(tuple(found), f"RAPL of {len(found)} package{'s' if len(found) > 1 else ''}", True)


def _reader(file: Path) -> Callable[[], int]:
    def read() -> int:
        try:
            return int(file.read_text())
        except ValueError:
            raise OSError(f"{file}: not a number") from None

    return read


def gpu(bus: str, library: str = NVML) -> Source:
    """Return the counter of a GPU.

    Args:
        bus: its PCI bus id.
        library: file of NVML.
    """
    try:
        nvml = ctypes.CDLL(library)
        functions = (nvml.nvmlInit_v2, nvml.nvmlDeviceGetHandleByPciBusId_v2, nvml.nvmlDeviceGetTotalEnergyConsumption)
    except (OSError, AttributeError) as error:
        return unknown(f"no NVML counters: {error}")
    init, find, count = functions
    nvml.nvmlErrorString.restype = ctypes.c_char_p
    device, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()

    def call(function: Callable[..., int], *arguments: object) -> None:
        status = function(*arguments)
        if status:
            raise OSError(f"{nvml.nvmlErrorString(status).decode(errors='replace')} (GPU {bus})")

    def read() -> int:
        call(count, device, ctypes.byref(millijoules))
        return 1000 * millijoules.value

    try:
        call(init)
        call(find, bus.encode(), ctypes.byref(device))
        read()
    except OSError as error:
        return unknown(f"no NVML counters: {error}")
    return Source((Counter(read, _NEVER),), "NVML", True)


class Gauge:
    """The energy that a source has counted since this object was made.

    Attributes:
        source: what is read.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self._joules = 0.0 if source.is_known else nan
        self._last = [0] * len(source.counters)
        try:
            self._count()
        except OSError:
            self._joules = nan

    def _count(self) -> List[int]:
        """Read all counters, and return what each has counted since the last time, in microjoules."""
        self._due = time.monotonic() + _READ_EVERY
        before, self._last = self._last, [counter.read() for counter in self.source.counters]
        return [(now - last) % c.range for now, last, c in zip(self._last, before, self.source.counters)]

    def joules(self) -> float:
        """Read the counters, and return the joules so far; nan if they are unknown, or can no longer be read."""
        try:
            self._joules += 1e-6 * sum(self._count())
        except OSError:
            self._joules = nan
        return self._joules

    def keep_up(self) -> None:
        """Read the counters if they might otherwise pass their range twice between two readings; call it often."""
        if self.source.counters and time.monotonic() >= self._due:
            self.joules()


class Meter:
    """The energy that one worker accounts for, so that the sum over all workers is that of the job."""

    def __init__(self, packages: Source = NOTHING, gpu: Source = NOTHING) -> None:
        """Begin to count.

        Args:
            packages: those of its host for one worker of each host, NOTHING for the others.
            gpu: its own for one worker of each GPU, NOTHING for the others.
        """
        self._gauges = Gauge(packages), Gauge(gpu)

    def joules(self) -> Tuple[float, float]:
        """Return the joules of packages and GPU since the start; nan if unknown, 0 if there are none."""
        packages, gpu = self._gauges
        return packages.joules(), gpu.joules()

    def keep_up(self) -> None:
        """Read counters that might otherwise pass their range twice; call it at least every ten seconds."""
        for gauge in self._gauges:
            gauge.keep_up()

    def describe(self) -> List[str]:
        """Name the counters, or say why the energy is unknown."""
        return [gauge.source.text for gauge in self._gauges if gauge.source.text]
