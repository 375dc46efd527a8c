"""Short time slices for workers on oversubscribed cores.

A rank that waits in MPI polls and yields. On a shared core it polls again only after the slices of the other processes,
3 ms each by default, and a collective of four ranks takes many such rounds. With slices of 0.1 ms two jobs of four
workers on two cores take 2.2 times as long as one, instead of 2.7 times (Linux 6.18, AMD EPYC); a worker alone on its
core is not affected. Linux lets a process choose its slice from 6.12 on; older kernels ignore the request.
"""

import ctypes
import os
import platform
from typing import ClassVar

SLICE = 100_000  # ns, the shortest that Linux accepts

_SYSTEM_CALL = {"x86_64": 314, "aarch64": 274}  # sched_setattr


class _SchedAttr(ctypes.Structure):
    """Linux's struct sched_attr."""

    _fields_: ClassVar = [
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    ]


def request_short_slices(nanoseconds: int = SLICE) -> bool:
    """Request short slices for this thread and the threads that it will start.

    The policy stays SCHED_OTHER and the priority is unchanged.

    Returns:
        Whether Linux accepted the request.
    """
    number = _SYSTEM_CALL.get(platform.machine())
    # With another policy, as under chrt, the user's choice is kept.
    if number is None or os.sched_getscheduler(0) != os.SCHED_OTHER:
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    keep_priority = libc.getpriority(0, 0)  # PRIO_PROCESS, this process
    attr = _SchedAttr(size=ctypes.sizeof(_SchedAttr), nice=keep_priority, runtime=nanoseconds)
    return bool(libc.syscall(number, 0, ctypes.byref(attr), 0) == 0)
