"""Gloo's connections between workers of one machine, over loopback.

Horovod 0.28 passes the network interface that horovodrun has chosen to the first of its two Gloo contexts only. The
second one, which sends the gradients, takes the address that the host name resolves to: it crashes if there is none,
and fails if the address disappears during the run. It asks the system for the host name once, in hvd.init. For that
time, this module answers in its place: it replaces the pointer to `gethostname` in the table of functions that
Horovod's library imports.
"""

import ctypes
import mmap
import platform
from contextlib import contextmanager
from typing import Any, ClassVar, Iterator, Optional

ADDRESS = b"127.0.0.1"

_MACHINES = ("x86_64", "aarch64")  # with tables of 64-bit entries with addends
_GetHostName = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_size_t)
_LINK_MAP = 2  # RTLD_DI_LINKMAP
_READ, _WRITE = 1, 2  # PROT_READ, PROT_WRITE
# Entries of a library's dynamic section: DT_PLTRELSZ, DT_STRTAB, DT_SYMTAB, DT_JMPREL.
_TABLE_SIZE, _NAMES, _SYMBOLS, _TABLE = 2, 5, 6, 23


class _Dynamic(ctypes.Structure):
    """Elf64_Dyn."""

    _fields_: ClassVar = [("tag", ctypes.c_int64), ("value", ctypes.c_uint64)]


class _LinkMap(ctypes.Structure):
    """The beginning of struct link_map."""

    _fields_: ClassVar = [
        ("address", ctypes.c_uint64),
        ("name", ctypes.c_char_p),
        ("dynamic", ctypes.POINTER(_Dynamic)),
    ]


class _Relocation(ctypes.Structure):
    """Elf64_Rela."""

    _fields_: ClassVar = [("offset", ctypes.c_uint64), ("info", ctypes.c_uint64), ("addend", ctypes.c_int64)]


class _Symbol(ctypes.Structure):
    """Elf64_Sym."""

    _fields_: ClassVar = [
        ("name", ctypes.c_uint32),
        ("kind", ctypes.c_uint16),
        ("section", ctypes.c_uint16),
        ("value", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
    ]


@contextmanager
def host_name_is_loopback(library: ctypes.CDLL) -> Iterator[None]:
    """Wrap hvd.init: this library sees loopback's address as the name of the host, and resolves it to itself.

    Do nothing on machines whose tables of functions have another form.
    """
    slot = _imported(library, b"gethostname")
    if slot is None:
        yield
        return

    def answer(buffer: int, size: int) -> int:
        ctypes.memmove(buffer, ADDRESS + b"\0", min(size, len(ADDRESS) + 1))
        return 0

    original, replacement = slot.value, _GetHostName(answer)
    _write(slot, ctypes.cast(replacement, ctypes.c_void_p).value)
    try:
        yield
    finally:
        _write(slot, original)


def _imported(library: ctypes.CDLL, name: bytes) -> Optional[ctypes.c_void_p]:
    """Return the pointer through which a library calls an imported function; None if there is none."""
    if platform.machine() not in _MACHINES or platform.libc_ver()[0] != "glibc":
        return None
    link = ctypes.POINTER(_LinkMap)()
    if ctypes.CDLL(None).dlinfo(ctypes.c_void_p(library._handle), _LINK_MAP, ctypes.byref(link)):
        return None
    found, index = {}, 0
    while link.contents.dynamic[index].tag:
        entry = link.contents.dynamic[index]
        found[entry.tag] = entry.value
        index += 1
    if not {_TABLE_SIZE, _NAMES, _SYMBOLS, _TABLE} <= set(found):
        return None
    count = found[_TABLE_SIZE] // ctypes.sizeof(_Relocation)
    for relocation in (_Relocation * count).from_address(found[_TABLE]):
        number = relocation.info >> 32
        symbol = _Symbol.from_address(found[_SYMBOLS] + number * ctypes.sizeof(_Symbol))
        if ctypes.string_at(found[_NAMES] + symbol.name) == name:
            return ctypes.c_void_p.from_address(link.contents.address + relocation.offset)
    return None


def _write(slot: ctypes.c_void_p, value: Any) -> None:
    """Write a pointer; if the loader has made its page read-only, the page is so again afterwards."""
    if _is_writable(ctypes.addressof(slot)):
        slot.value = value
        return
    page = ctypes.c_void_p(ctypes.addressof(slot) // mmap.PAGESIZE * mmap.PAGESIZE)
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), _READ | _WRITE):
        raise OSError(ctypes.get_errno(), "mprotect")
    slot.value = value
    libc.mprotect(page, ctypes.c_size_t(mmap.PAGESIZE), _READ)


def _is_writable(address: int) -> bool:
    """Return whether this process may write at an address."""
    with open("/proc/self/maps", "rb") as regions:
        for region in regions:
            limits, rights = region.split()[:2]
            first, end = (int(limit, 16) for limit in limits.split(b"-"))
            if first <= address < end:
                return b"w" in rights
    return False
