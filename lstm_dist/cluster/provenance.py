"""Provenance of a start of a run, for its run card: the code and the software, the job, each worker and its host."""

import os
import platform
import shlex
import socket
import sys
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any, Collection, Dict, Optional

from lstm_dist.attempt import ATTEMPT
from lstm_dist.cluster.cpu_affinity import openmp_threads
from lstm_dist.cluster.launch_env import detect
from lstm_dist.cluster.machine import numa_nodes_of
from lstm_dist.cluster.openblas import kernel_in_use
from lstm_dist.cluster.processor import this_processor
from lstm_dist.cluster.recorded_variables import slurm_job
from lstm_dist.cluster.source_code import code_digest, git_facts

_PACKAGES = ("lstm-dist", "mxnet", "mxnet-cu112", "horovod", "mpi4py", "numpy")


def describe_process() -> Dict[str, Any]:
    """Return the facts of this process for the run card; call it before MPI starts, because it forks.

    Only rank 0, which writes the card, asks git.
    """
    return {
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "attempt": os.environ.get(ATTEMPT),
        "command": shlex.join([Path(sys.executable).name, *sys.argv]),
        "directory": os.getcwd(),
        "code": code_digest(Path(sys.argv[0])),
        **(git_facts() if detect().rank == 0 else {}),
        "python": platform.python_version(),
        "versions": package_versions(),
        "slurm": slurm_job(os.environ),
    }


def package_versions() -> Dict[str, str]:
    """Return the versions of the packages that decide a run, by name, without those that are not installed."""
    return {name: version for name in _PACKAGES for version in [_version(name)] if version}


def describe_rank(device: str, gpu: str = "", cores: Optional[Collection[int]] = None) -> Dict[str, Any]:
    """Return the facts of one rank for the run card: its host, device, threads, cores and kernel of OpenBLAS.

    Args:
        device: that it computes on.
        gpu: name and bus of a GPU.
        cores: that it is to use; by default those that it may use now.
    """
    used = sorted(os.sched_getaffinity(0) if cores is None else cores)
    return {
        "host": socket.gethostname(),
        "device": device,
        "threads": openmp_threads(),
        "cores": used,
        "numa_nodes": numa_nodes_of(used),
        "processor": this_processor().name,
        "openblas": kernel_in_use(),
        "gpu": gpu,
    }


def _version(package: str) -> Optional[str]:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
