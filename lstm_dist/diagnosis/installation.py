"""Checks of the installed packages: versions, build options, and whether they can be imported.

Any package may be broken, so each is imported by name and every error becomes a result. The required versions are those
of setup.py, read from the metadata of this package.
"""

import importlib
import os
import platform
import re
import subprocess
import sys
import warnings
from importlib import metadata
from types import ModuleType
from typing import Optional, Tuple

from lstm_dist.cluster.cuda_libs import DRIVER
from lstm_dist.cluster.isolation import IGNORED
from lstm_dist.diagnosis.report import SET_UP, CheckReport

_PACKAGE = "lstm-dist"
_PINNED = re.compile(r"([\w.-]+)\s*\(?==\s*([\w.]+)")  # of a requirement such as `mxnet==1.9.1; extra == "cpu"`
# Libraries of Open MPI, MPICH, Intel MPI and Cray MPI; not their companions for C++ and Fortran.
_LIBMPI = re.compile(r"/lib(?:mpi|mpich|mpi_cray)\.so[.\d]*$")
_FEATURES = (
    "CUDA",
    "CUDNN",
    "NCCL",
    "MKLDNN",
    "OPENMP",
    "BLAS_OPEN",
    "BLAS_MKL",
    "LAPACK",
    "F16C",
    "INT64_TENSOR_SIZE",
)


def pinned_version(package: str) -> str:
    """Return the version of a package that setup.py requires; empty if this package is not installed."""
    try:
        requirements = metadata.requires(_PACKAGE) or []
    except metadata.PackageNotFoundError:
        return ""
    matches = (_PINNED.match(requirement) for requirement in requirements)
    return next((match[2] for match in matches if match and match[1].lower() == package), "")


def supported_pythons() -> Tuple[Tuple[int, int], Tuple[int, int]]:
    """Return the first and the last minor version of Python that setup.py allows."""
    text = metadata.metadata(_PACKAGE)["Requires-Python"]
    first, after = re.search(r">=\s*3\.(\d+)", text), re.search(r"<\s*3\.(\d+)", text)
    assert first is not None  # noqa: S101 - setup.py gives both
    assert after is not None  # noqa: S101
    return (3, int(first[1])), (3, int(after[1]) - 1)


def import_package(report: CheckReport, name: str, topic: str) -> Optional[ModuleType]:
    """Import a module; if that fails, add an error to the report and return None."""
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", UserWarning)  # Horovod's, if it was compiled for another MXNet
            module = importlib.import_module(name)
    except Exception as error:  # the import of a compiled library can fail in any way
        needs_gpu = DRIVER in str(error)
        remedy = "start on a node with GPUs: this environment was set up for them" if needs_gpu else SET_UP
        report.fail(topic, f"import {name}: {type(error).__name__}: {_first_line(error)}", remedy)
        return None
    for warning in caught:
        if topic in str(warning.message).lower():
            report.warn(topic, _first_line(warning.message), SET_UP)
    return module


def check_python(report: CheckReport) -> None:
    """Check Python's version, whether this package is installed, and what may hide the environment's packages."""
    text = f"{platform.python_version()}, {sys.executable}"
    try:
        first, last = supported_pythons()
    except metadata.PackageNotFoundError:
        report.fail("python", f"{text}: {_PACKAGE} is not installed in its environment", SET_UP)
    else:
        if first <= sys.version_info[:2] <= last:
            report.ok("python", text)
        else:
            versions = " to ".join(f"{major}.{minor}" for major, minor in (first, last))
            report.fail("python", f"{text}: MXNet {pinned_version('mxnet')} needs {versions}", SET_UP)
    ignored = os.environ.get(IGNORED)
    if ignored:
        advice = f"unset {ignored} before horovodrun is started by hand, which does not ignore it"
        report.warn("python", f"{ignored} is set for another Python, and ignored by the programs here", advice)


def check_numpy(report: CheckReport) -> None:
    """Check numpy's version: MXNet uses names that the minor version after the required one removed."""
    numpy = import_package(report, "numpy", "numpy")
    if numpy is None:
        return
    text, required = f"{numpy.__version__}, {os.path.dirname(numpy.__file__ or '?')}", pinned_version("numpy")
    if required and _minor_version(numpy.__version__) > _minor_version(required):
        report.fail("numpy", f"{text}: MXNet {pinned_version('mxnet')} needs {required} or an earlier one", SET_UP)
    else:
        report.ok("numpy", text)


def check_mxnet(report: CheckReport) -> Optional[ModuleType]:
    """Check MXNet's version, and report what it was built with."""
    mx = import_package(report, "mxnet", "mxnet")
    if mx is None:
        return None
    features = mx.runtime.Features()
    enabled = [name for name in _FEATURES if name in features and features.is_enabled(name)]
    text, required = f"{mx.__version__}, built with {' '.join(enabled)}", pinned_version("mxnet")
    if required and mx.__version__ != required:
        report.warn("mxnet", f"{text}: this project requires {required}", SET_UP)
    else:
        report.ok("mxnet", text)
    return mx


def check_mpi4py(report: CheckReport, initialize: bool) -> Optional[ModuleType]:
    """Report the versions of mpi4py and its MPI.

    Args:
        report: receives the results.
        initialize: whether to start MPI, which ends this process if it fails.
    """
    mpi4py = import_package(report, "mpi4py", "mpi4py")
    if mpi4py is None:
        return None
    mpi4py.rc.initialize = mpi4py.rc.finalize = initialize
    mpi = import_package(report, "mpi4py.MPI", "mpi4py")
    if mpi is None:
        return None
    library = _first_line(mpi.Get_library_version()).split(",")[0].strip("\0 ")
    report.ok("mpi4py", f"{mpi4py.__version__}, {library}")
    return mpi


def check_horovod(report: CheckReport, with_cuda: bool, controller: str) -> Optional[ModuleType]:
    """Check Horovod's version and controllers, and how it transfers a GPU's memory.

    Args:
        report: receives the results.
        with_cuda: whether MXNet was built with CUDA.
        controller: gloo or mpi, which the launcher needs.
    """
    hvd = import_package(report, "horovod.mxnet", "horovod")
    if hvd is None:
        return None
    version, required = importlib.import_module("horovod").__version__, pinned_version("horovod")
    built = [name for name in ("gloo", "mpi") if getattr(hvd, f"{name}_built")()]
    operations = [name for name in ("cuda", "nccl") if getattr(hvd, f"{name}_built")()]
    text = f"{version}, controllers {' '.join(built) or 'none'}, GPU operations {' '.join(operations) or 'none'}"
    if controller not in built:
        remedy = f"use a launcher for {' or '.join(built)}, or {SET_UP}" if built else SET_UP
        report.fail("horovod", f"{text}: built without {controller}, which this launcher needs", remedy)
        return None
    if required and version != required:
        report.warn("horovod", f"{text}: this project requires {required}", SET_UP)
    elif with_cuda and "nccl" not in operations:
        text += ": built without NCCL, so gradients pass through host memory, which is slow"
        report.warn("horovod", text, "run launch/setup.sh --gpu, which compiles it for NCCL")
    else:
        report.ok("horovod", text)
    return hvd


def check_one_mpi(report: CheckReport) -> None:
    """Check that Horovod and mpi4py have loaded the same MPI library into this process."""
    with open("/proc/self/maps", encoding="utf-8") as maps:
        paths = {line.split()[-1] for line in maps}
    libraries = sorted({os.path.realpath(path) for path in paths if _LIBMPI.search(path)})
    if len(libraries) > 1:
        text = f"Horovod and mpi4py use different MPI libraries: {' and '.join(libraries)}"
        report.fail("MPI", text, "rm -r .venv, load the MPI to use, and run launch/setup.sh")
    elif libraries:
        report.ok("MPI", f"the same for Horovod and mpi4py, {libraries[0]}")


def check_singleton(report: CheckReport) -> None:
    """Check, in another process, whether MPI starts without a launcher, which plain scripts with mpi4py need."""
    command = [sys.executable, "-c", "from mpi4py import MPI"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if run.returncode:
        lines = [line for line in run.stderr.splitlines() if "error" in line.lower()] or run.stderr.splitlines()
        text = f"does not start without a launcher: {lines[0].strip(' *') if lines else f'status {run.returncode}'}"
        report.warn(
            "MPI", text, "run this program under mpirun too; a job of one worker needs no MPI and is not affected"
        )


def _first_line(error: object) -> str:
    """Return the first line of a message that is not empty."""
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def _minor_version(version: str) -> Tuple[int, ...]:
    return tuple(map(int, version.split(".")[:2]))
