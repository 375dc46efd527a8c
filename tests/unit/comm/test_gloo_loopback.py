"""A library sees loopback's address as the host name while Horovod starts, and the host's own name afterwards."""

import _socket
import ctypes
import socket

import pytest

from lstm_dist.comm.gloo_loopback import _imported, host_name_is_loopback


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
