"""The environment variables that a run records: a list of names, as the environment of a job may hold passwords."""

import re
from typing import Dict, Mapping, Optional

# Variables that decide how workers compute and communicate, and no others.
_NAMES = frozenset(
    "CUDA_VISIBLE_DEVICES CUDA_DEVICE_ORDER CUDA_MPS_ACTIVE_THREAD_PERCENTAGE FI_PROVIDER "
    "HOROVOD_CONTROLLER HOROVOD_CPU_OPERATIONS HOROVOD_GPU_OPERATIONS HOROVOD_FUSION_THRESHOLD HOROVOD_CYCLE_TIME "
    "HOROVOD_CACHE_CAPACITY HOROVOD_HIERARCHICAL_ALLREDUCE HOROVOD_HIERARCHICAL_ALLGATHER HOROVOD_AUTOTUNE "
    "HOROVOD_GLOO_IFACE HOROVOD_NUM_NCCL_STREAMS HOROVOD_THREAD_AFFINITY HOROVOD_MPI_THREADS_DISABLE "
    "LSTM_DIST_PINNING LSTM_DIST_IGNORED MALLOC_ARENA_MAX LD_PRELOAD "
    "MXNET_ENGINE_TYPE MXNET_SAFE_ACCUMULATION MXNET_ENFORCE_DETERMINISM MXNET_SUBGRAPH_BACKEND MXNET_USE_FUSION "
    "MXNET_MKLDNN_ENABLED".split()
)
_PREFIXES = (
    "OMP_", "GOMP_", "KMP_", "OPENBLAS_", "MKL_", "NCCL_", "UCX_", "MXNET_EXEC_", "MXNET_CPU_", "MXNET_GPU_",
    "MXNET_CUDNN_", "OMPI_MCA_btl", "OMPI_MCA_coll", "OMPI_MCA_pml", "OMPI_MCA_mtl", "OMPI_MCA_mpi_",
    "OMPI_MCA_hwloc_", "OMPI_MCA_rmaps_", "OMPI_MCA_oob_tcp_if",
)  # fmt: skip
# Of these, none has such a name or value; one that had would not be what it is taken for.
_SECRET_NAME = re.compile(r"SECRET|TOKEN|PASS|CREDENTIAL|AUTH|COOKIE|PRIVATE|_KEY", re.IGNORECASE)
_PLAIN_VALUE = re.compile(r"[\w .,:;/+=%^*()<>{}\[\]-]{0,300}")

_SLURM = {
    "job": "SLURM_JOB_ID",
    "cluster": "SLURM_CLUSTER_NAME",
    "partition": "SLURM_JOB_PARTITION",
    "nodes": "SLURM_JOB_NODELIST",
    "number_of_nodes": "SLURM_JOB_NUM_NODES",
    "tasks_per_node": "SLURM_TASKS_PER_NODE",
    "cores_per_task": "SLURM_CPUS_PER_TASK",
    "restarts": "SLURM_RESTART_COUNT",
}


def recorded_variables(environ: Mapping[str, str]) -> Dict[str, str]:
    """Return the variables that decide how workers compute and communicate, by name; never all of an environment."""
    return {
        name: value
        for name, value in sorted(environ.items())
        if (name in _NAMES or name.startswith(_PREFIXES))
        and not _SECRET_NAME.search(name)
        and _PLAIN_VALUE.fullmatch(value)
        and "://" not in value  # an address may hold a password
    }


def slurm_job(environ: Mapping[str, str]) -> Optional[Dict[str, str]]:
    """Return what Slurm says of the job that this process belongs to; None outside of Slurm."""
    if not environ.get("SLURM_JOB_ID"):
        return None
    return {fact: environ[name] for fact, name in _SLURM.items() if environ.get(name)}
