"""The network interfaces that this process communicates over, from its open TCP connections (IPv4)."""

import fcntl
import os
import re
import socket
import struct
from contextlib import suppress
from pathlib import Path
from typing import Dict, List, Optional, Set

from lstm_dist.cluster.launch_env import LOOPBACK

_ESTABLISHED = "01"  # state in /proc/net/tcp
_SIOCGIFADDR = 0x8915  # ioctl that returns the address of an interface


def connected_interfaces(to_other_hosts: bool) -> Optional[List[str]]:
    """Return the sorted names of the interfaces that this process has TCP connections over; None without any.

    Args:
        to_other_hosts: leave out loopback, over which a worker speaks to the launcher on its host only.
    """
    names = _interfaces()
    found = {LOOPBACK if address.startswith("127.") else names.get(address, "") for address in _local_addresses()}
    return sorted(found - ({"", LOOPBACK} if to_other_hosts else {""})) or None


def _local_addresses(process: Path = Path("/proc/self")) -> Set[str]:
    """Return the addresses of this machine in the established connections of a process."""
    sockets: Set[str] = set()
    with suppress(OSError):
        for descriptor in (process / "fd").iterdir():
            with suppress(OSError):  # it was that of this listing
                sockets.update(re.findall(r"socket:\[(\d+)\]", os.readlink(descriptor)))
    addresses: Set[str] = set()
    with suppress(OSError):
        for line in (process / "net" / "tcp").read_text().splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == _ESTABLISHED and inode in sockets:
                number = int(local.partition(":")[0], 16)  # as it lies in memory
                addresses.add(socket.inet_ntoa(struct.pack("=I", number)))
    return addresses


def _interfaces() -> Dict[str, str]:
    """Return the names of this machine's interfaces by their addresses."""
    names: Dict[str, str] = {}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        for _, name in socket.if_nameindex():
            with suppress(OSError):  # it has no address
                reply = fcntl.ioctl(any_socket.fileno(), _SIOCGIFADDR, struct.pack("256s", name.encode()[:15]))
                names[socket.inet_ntoa(reply[20:24])] = name
    return names
