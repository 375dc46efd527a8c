"""Variables of MXNet, Horovod and OpenMP that end the process without naming them when their value is invalid."""

import re
from typing import Mapping

from lstm_dist.errors import ExitStatus, UserError

_THREADS = re.compile(r"MXNET_(\w+_NTHREADS|OMP_MAX_THREADS)")
_NUMBERS = re.compile(r"MXNET_(EXEC|CPU|MKLDNN|BACKWARD|SAFE|KVSTORE)_\w+")
_NUMBER = re.compile(r"-?\d{1,10}|true|false", re.IGNORECASE)
_MOST = 2**31  # MXNet reads 32-bit integers, also for MXNET_KVSTORE_BIGARRAY_BOUND
_FRACTIONS = ("MXNET_KVSTORE_TREE_LINK_USAGE_PENALTY",)
_FRACTION = re.compile(r"-?\d{1,18}(\.\d{0,18})?(e[-+]?\d{1,2})?", re.IGNORECASE)
_WHOLE_NUMBERS = ("HOROVOD_GLOO_TIMEOUT_SECONDS", "HOROVOD_CACHE_CAPACITY")
_WHOLE_NUMBER = re.compile(r"\d{1,9}")
_CHOICES = {
    "MXNET_ENGINE_TYPE": ("NaiveEngine", "ThreadedEngine", "ThreadedEnginePerDevice"),
    "HOROVOD_CONTROLLER": ("gloo", "mpi"),
    "HOROVOD_CPU_OPERATIONS": ("gloo", "mpi", "ccl"),
}
_STACK = re.compile(r"\s*(\d+)\s*([BKMG]?)\s*", re.IGNORECASE)  # of OMP_STACKSIZE; without a unit, in kB
MOST_THREADS = 1024  # of a worker; the libraries abort when they cannot start as many as they are told to
_LARGEST_STACK = 2**34  # bytes


def require_valid(environ: Mapping[str, str]) -> None:
    """Check the values of variables that are set; call it before MXNet is loaded.

    Raises:
        UserError: naming the variable.
    """
    for name, value in environ.items():
        expected = _expected(name, value) if value else ""
        if expected:
            raise UserError(f"{name}={value[:40]}: should be {expected}; or unset it", ExitStatus.BAD_CONFIG)


def _expected(name: str, value: str) -> str:
    """Return what the value should be; empty if it is valid, or the variable is none of those that are checked."""
    if _THREADS.fullmatch(name):
        is_valid = value.isdigit() and len(value) <= len(str(MOST_THREADS)) and 1 <= int(value) <= MOST_THREADS
        return "" if is_valid else f"a number of threads from 1 to {MOST_THREADS}"
    if name in _CHOICES:
        return "" if value in _CHOICES[name] else f"one of {', '.join(_CHOICES[name])}"
    if name in _WHOLE_NUMBERS:
        return "" if _WHOLE_NUMBER.fullmatch(value) else "a whole number"
    if name == "OMP_STACKSIZE":
        given = _STACK.fullmatch(value)
        unit = {"B": 1, "": 2**10, "K": 2**10, "M": 2**20, "G": 2**30}
        is_valid = given is None or float(given[1]) * unit[given[2].upper()] <= _LARGEST_STACK
        return "" if is_valid else "at most 16G, because every thread reserves as much"
    if name in _FRACTIONS:
        return "" if _FRACTION.fullmatch(value) else "a number"
    if not _NUMBERS.fullmatch(name):
        return ""
    is_number = _NUMBER.fullmatch(value) and (value[-1].isalpha() or -_MOST <= int(value) < _MOST)
    return "" if is_number else "a whole number below 2^31, true or false"
