"""The kernel of the OpenBLAS that comes with MXNet: chosen from what the processor can do.

MXNet 1.9.1 brings OpenBLAS 0.3.13, which chooses among its kernels by the processor's model number. It does not know
models that are newer than itself, and runs a kernel of 2004 (Prescott, SSE3) on them, at a third of the speed of the
one for AVX2. So the kernel is named to it before it is loaded. It has none for AVX-512.
"""

import ctypes
import os
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Iterator, Optional

from lstm_dist.cluster.processor import Processor, this_processor

VARIABLE = "OPENBLAS_CORETYPE"
_AMD = ("AuthenticAMD", "HygonGenuine")


def fastest_kernel(processor: Processor) -> str:
    """Return the name of the fastest kernel that runs on the processor; empty if OpenBLAS knows better.

    It knows the older processors of AMD, whose instructions differ from model to model, and all that are not x86.
    """
    has = processor.instructions.issuperset
    if has({"avx2", "fma"}):
        return "Zen" if processor.vendor in _AMD else "Haswell"
    if processor.vendor in _AMD:
        return ""
    return "Sandybridge" if has({"avx"}) else "Nehalem" if has({"sse4_2"}) else ""


@contextmanager
def named_kernel(processor: Optional[Processor] = None) -> Iterator[None]:
    """Let an MXNet that is loaded in this context use the fastest kernel, unless the user has named another.

    The variable is removed afterwards, because numpy's OpenBLAS, which knows more processors, would obey it in child
    processes; in this process numpy has to be loaded before.
    """
    kernel = "" if os.environ.get(VARIABLE) else fastest_kernel(processor or this_processor())
    if not kernel or bundled_library() is None:
        yield
        return
    before = os.environ.get(VARIABLE)
    os.environ[VARIABLE] = kernel
    try:
        yield
    finally:
        if before is None:
            del os.environ[VARIABLE]
        else:
            os.environ[VARIABLE] = before


def bundled_library() -> Optional[Path]:
    """Return the OpenBLAS that comes with MXNet; None for an MXNet that uses another BLAS, or none of its own."""
    found = find_spec("mxnet")
    library = Path(found.origin).parent / "libopenblas.so.0" if found is not None and found.origin else None
    return library if library is not None and library.is_file() else None


def kernel_in_use() -> str:
    """Return the kernel that MXNet's OpenBLAS uses; empty if it is not loaded, or another BLAS is."""
    library = bundled_library()
    try:
        loaded = ctypes.CDLL(str(library), mode=os.RTLD_NOLOAD) if library is not None else None
    except OSError:
        return ""
    if loaded is None:
        return ""
    name = loaded.openblas_get_corename
    name.restype = ctypes.c_char_p
    return str(name().decode())


def rounding_kernel() -> str:
    """Return `kernel_in_use`, or a kernel that computes the same bits: Zen is Haswell tuned for AMD."""
    kernel = kernel_in_use()
    return "Haswell" if kernel == "Zen" else kernel
