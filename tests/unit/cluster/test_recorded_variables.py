"""Which environment variables a run records, and that none of them can hold a secret."""

import pytest

from lstm_dist.cluster.recorded_variables import recorded_variables, slurm_job

RECORDED = {
    "OMP_NUM_THREADS": "4,2", "CUDA_VISIBLE_DEVICES": "0,1", "HOROVOD_CYCLE_TIME": "1", "NCCL_SOCKET_IFNAME": "ib0",
    "UCX_TLS": "rc,self", "OMPI_MCA_btl_tcp_if_include": "10.0.0.0/24", "OMPI_MCA_btl": "^openib",
    "MXNET_CUDNN_AUTOTUNE_DEFAULT": "0", "OPENBLAS_CORETYPE": "Haswell",
}  # fmt: skip
NOT_RECORDED = {
    "HOME": "/home/me", "AWS_SECRET_ACCESS_KEY": "x", "_HOROVOD_SECRET_KEY": "x", "HOROVOD_SECRET_KEY": "x",
    "HOROVOD_GLOO_RENDEZVOUS_ADDR": "10.0.0.1", "OMPI_MCA_orte_hnp_uri": "1.0;tcp://10.0.0.1:1",
    "PMIX_SERVER_URI2": "x", "MXNET_GLUON_REPO": "https://me:password@example.org", "WANDB_API_KEY": "x",
    "NCCL_PROXY_PASSWORD": "x", "UCX_AUTH_TOKEN": "x", "MKL_LICENSE": "https://example.org/secret",
    "OMP_DISPLAY_ENV": "user@example.org", "KMP_SETTINGS": "x\ny", "NCCL_DEBUG_FILE": "x" * 301,
}  # fmt: skip


def test_only_listed_variables_are_recorded():
    assert recorded_variables({**RECORDED, **NOT_RECORDED}) == RECORDED


@pytest.mark.parametrize("environ", [{}, {"SLURM_JOB_ID": ""}, {"SLURM_JOB_PARTITION": "gpu"}])
def test_outside_of_slurm_there_is_no_job(environ: dict):
    assert slurm_job(environ) is None


def test_slurm_job_is_described():
    environ = {"SLURM_JOB_ID": "7", "SLURM_JOB_PARTITION": "gpu", "SLURM_JOB_NODELIST": "n[1-2]", "SLURM_JWT": "secret"}
    assert slurm_job(environ) == {"job": "7", "partition": "gpu", "nodes": "n[1-2]"}
