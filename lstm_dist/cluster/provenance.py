"""Provenance of a run for its run card. The environment is not recorded."""

import hashlib
import os
import platform
import shlex
import socket
import subprocess
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Optional

from lstm_dist.cluster.cpu_affinity import openmp_threads
from lstm_dist.cluster.isolation import ROOT
from lstm_dist.cluster.openblas import kernel_in_use
from lstm_dist.cluster.processor import this_processor

# Packages that start runs, measure them and report on them.
_ABOVE_TRAINING = ("experiments", "scaling", "sweep", "bench", "diagnosis", "programs")


def describe_process() -> Dict[str, Any]:
    """Return the facts of this process for the run card; call it before MPI starts, because it forks."""
    packages = ("lstm-dist", "mxnet", "mxnet-cu112", "horovod", "mpi4py", "numpy")
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": os.getcwd(),
        "git_commit": _git_commit(),
        "python": platform.python_version(),
        "versions": {name: version for name in packages for version in [_version(name)] if version},
    }


def describe_rank(device: str, gpu: str = "") -> Dict[str, Any]:
    """Return the facts of one rank for the run card: its host, device, threads, cores and kernel of OpenBLAS."""
    cores = sorted(os.sched_getaffinity(0))
    facts = {"host": socket.gethostname(), "device": device, "threads": openmp_threads(), "cores": cores}
    return {**facts, "processor": this_processor().name, "openblas": kernel_in_use(), "gpu": gpu}


def code_digest(program: Path) -> str:
    """Return the SHA-256 of the source that decides a training run; a report's caption does not change it.

    Args:
        program: the file that was started, such as jobs/train.py.
    """
    package = Path(__file__).resolve().parents[1]
    library = [path for path in package.glob("**/*.py") if path.relative_to(package).parts[0] not in _ABOVE_TRAINING]
    sources = [*sorted(library), package / "programs" / program.name, program]
    return hashlib.sha256(b"\0".join(path.read_bytes() for path in sources if path.is_file())).hexdigest()


def _git_commit() -> Optional[str]:
    try:
        described = subprocess.run(
            ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=40"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
