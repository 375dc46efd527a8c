"""A switch with cables of a given latency: a frame is delivered when its last bit would have arrived.

This replaces `tc netem delay`, for kernels that are built without it. tc limits the rate of a cable, but lets a first
burst through at once; the transmission time of each frame is therefore added here. Each cable is a TAP device, created
here and then moved to its host.

python tests/support/wires.py SECONDS BYTES_PER_SECOND cable1 cable2 ...   runs until killed; first prints "ready"
"""

import contextlib
import fcntl
import heapq
import itertools
import os
import select
import struct
import sys
import time
from typing import Dict, List, Tuple

TUNSETIFF, TUNSETOFFLOAD = 0x400454CA, 0x400454D0  # linux/if_tun.h
TAP, NO_PACKET_INFO, OFFLOAD_HEADER = 0x0002, 0x1000, 0x4000
CHECKSUM, SEGMENTS = 0x01, 0x02 | 0x04  # left to the device, so not done at all: the other end is in this kernel too
HEADER = 10  # bytes of struct virtio_net_hdr before each frame
FRAME = 65_536 + 64
MULTICAST = 0x01  # in the first byte of an address
OWN_TIME = 40e-6  # s that a frame takes without added latency: half a round trip between two polling sockets


def open_tap(name: str) -> int:
    """Create a TAP device and return its file descriptor."""
    file = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(file, TUNSETIFF, struct.pack("16sH22x", name.encode(), TAP | NO_PACKET_INFO | OFFLOAD_HEADER))
    fcntl.ioctl(file, TUNSETOFFLOAD, CHECKSUM | SEGMENTS)
    return file


class Switch:
    """Learns which address is behind which cable, as any switch does."""

    def __init__(self, files: List[int]) -> None:
        self.files = files
        self._homes: Dict[bytes, int] = {}

    def ways(self, frame: bytes, source: int) -> List[int]:
        """Return the destinations of a frame from `source`: the cable of its address if known, otherwise all others."""
        to, sender = frame[HEADER : HEADER + 6], frame[HEADER + 6 : HEADER + 12]
        self._homes[sender] = source
        if to[0] & MULTICAST or to not in self._homes:
            return [file for file in self.files if file != source]
        return [self._homes[to]]


def carry(switch: Switch, latency: float, rate: float) -> None:
    """Forward frames forever."""
    under_way: List[Tuple[float, int, int, bytes]] = []  # arrival time, order, destination, frame
    order, last = itertools.count(), dict.fromkeys(switch.files, 0.0)
    while True:
        patience = max(0.0, under_way[0][0] - time.monotonic()) if under_way else None
        for source in select.select(switch.files, [], [], patience)[0]:
            frame = os.read(source, FRAME)
            # Frames on one cable do not overtake each other.
            last[source] = max(last[source], time.monotonic() + len(frame) / rate + latency - OWN_TIME)
            for way in switch.ways(frame, source):
                heapq.heappush(under_way, (last[source], next(order), way, frame))
        while under_way and under_way[0][0] <= time.monotonic():
            _, _, way, frame = heapq.heappop(under_way)
            deliver(way, frame)


def deliver(way: int, frame: bytes) -> None:
    """Write a frame to a cable; a host that is not connected yet misses it, as on a real network."""
    with contextlib.suppress(OSError):
        os.write(way, frame)


if __name__ == "__main__":
    # Real-time priority, so that computing processes do not delay frames.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(50))
    files = [open_tap(name) for name in sys.argv[3:]]
    print("ready", flush=True)
    carry(Switch(files), float(sys.argv[1]), float(sys.argv[2]))
