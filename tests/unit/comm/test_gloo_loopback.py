"""A library sees loopback's address as the host name while Horovod starts, and the host's own name afterwards."""

import _socket
import ctypes
import mmap
import socket

import pytest

from lstm_dist.comm.gloo_loopback import _imported, _is_writable, _write, host_name_is_loopback


@pytest.fixture
def library() -> ctypes.CDLL:
    """Return a library that imports gethostname: that of Python's module socket."""
    path = getattr(_socket, "__file__", None)
    if path is None:
        pytest.skip("this Python has its module socket built in")
    return ctypes.CDLL(path)


def test_host_name_is_loopback_inside_and_restored_afterwards(library: ctypes.CDLL):
    before = socket.gethostname()
    with host_name_is_loopback(library):
        assert socket.gethostname() == "127.0.0.1"
    assert socket.gethostname() == before
    with pytest.raises(KeyError), host_name_is_loopback(library):
        raise KeyError
    assert socket.gethostname() == before


def test_function_that_is_not_imported_is_not_found(library: ctypes.CDLL):
    assert _imported(library, b"gethostname") is not None
    assert _imported(library, b"MPI_Init") is None


@pytest.mark.parametrize("is_writable", [False, True])
def test_page_of_the_pointer_stays_as_it_was(is_writable: bool):
    page = mmap.mmap(-1, mmap.PAGESIZE)
    slot = ctypes.c_void_p.from_buffer(page)
    address = ctypes.addressof(slot)
    libc = ctypes.CDLL(None)
    assert libc.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(mmap.PAGESIZE), 3 if is_writable else 1) == 0
    _write(slot, 4711)
    assert slot.value == 4711
    assert _is_writable(address) == is_writable
