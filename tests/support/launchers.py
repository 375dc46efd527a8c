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

# Variables of Open MPI's mpirun, of MPICH's mpiexec and of a Slurm step without PMIx, of one process each, all ended.
LEFTOVERS = {
    "OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "1", "PMIX_NAMESPACE": "1", "PMIX_RANK": "0",
    "OMPI_MCA_ess_base_jobid": "1", "OMPI_MCA_ess_base_vpid": "0", "PMIX_SERVER_URI2": "1.0;tcp4://127.0.0.1:1",
    "PMI_RANK": "0", "PMI_SIZE": "1", "PMI_FD": "77", "HOROVOD_CONTROLLER": "mpi",
    "SLURM_PROCID": "0", "SLURM_STEP_NUM_TASKS": "1", "SLURM_JOB_ID": "1", "SLURM_STEPID": "0",
}  # fmt: skip


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
