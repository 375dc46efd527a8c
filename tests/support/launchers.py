"""The launchers that a job runs under, each with its own way of saying how many ranks."""

import os
from typing import Any

import pytest

# Root is refused by mpirun unless it insists; and the ranks of a test may well be more than the machine's cores.
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OMPI_MCA_rmaps_base_oversubscribe": "1"}
# As lstm_dist/cluster/horovodrun.py does: horovodrun starts sooner.
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
    """The decorator of a test that runs under some of the launchers."""
    return pytest.mark.parametrize("launcher", [LAUNCHERS[name] for name in names], ids=names)


EVERY_LAUNCHER = under(*LAUNCHERS)
