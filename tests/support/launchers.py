"""The launchers that a job runs under, with their command lines for a number of ranks."""

import os
from typing import Any

import pytest

# A test may have more ranks than the machine has cores; and mpirun refuses root unless it is allowed explicitly.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
# As in lstm_dist/cluster/horovodrun.py: horovodrun starts faster with it.
ENVIRONMENT["SETUPTOOLS_USE_DISTUTILS"] = "stdlib"
if os.geteuid() == 0:
    ENVIRONMENT.update(OMPI_ALLOW_RUN_AS_ROOT="1", OMPI_ALLOW_RUN_AS_ROOT_CONFIRM="1")


def horovodrun(controller: str, ranks: int) -> list:
    return ["horovodrun", "-np", str(ranks), "-H", f"localhost:{ranks}", f"--{controller}", "--disable-cache"]


def mpirun(ranks: int) -> list:
    return ["mpirun", "-np", str(ranks)]


LAUNCHERS = {"horovodrun-gloo": lambda n: horovodrun("gloo", n), "horovodrun-mpi": lambda n: horovodrun("mpi", n)}
LAUNCHERS["mpirun"] = mpirun


def under(*names: str) -> Any:
    """Return a decorator that runs a test under each of the named launchers."""
    return pytest.mark.parametrize("launcher", [LAUNCHERS[name] for name in names], ids=names)


EVERY_LAUNCHER = under(*LAUNCHERS)
