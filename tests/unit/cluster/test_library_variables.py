"""Values on which MXNet, Horovod or OpenMP would end the process are refused, with the variable's name."""

import re

import pytest

from lstm_dist.cluster.library_variables import require_valid
from lstm_dist.errors import UserError


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("MXNET_CPU_WORKER_NTHREADS", "two", "a number of threads from 1 to 1024"),
        ("MXNET_CPU_PRIORITY_NTHREADS", "-3", "a number of threads from 1 to 1024"),
        pytest.param("MXNET_OMP_MAX_THREADS", "9" * 5000, "a number of threads from 1 to 1024", id="5000 digits"),
        ("MXNET_ENGINE_TYPE", "Naive", "one of NaiveEngine, ThreadedEngine, ThreadedEnginePerDevice"),
        ("MXNET_EXEC_BULK_EXEC_TRAIN", "on", "a whole number below 2^31, true or false"),
        ("MXNET_MKLDNN_CACHE_NUM", "1e3", "a whole number below 2^31, true or false"),
        ("MXNET_KVSTORE_BIGARRAY_BOUND", "0.5", "a whole number below 2^31, true or false"),
        ("MXNET_KVSTORE_BIGARRAY_BOUND", "2147483648", "a whole number below 2^31, true or false"),
        ("MXNET_KVSTORE_TREE_LINK_USAGE_PENALTY", "high", "a number"),
        ("HOROVOD_GLOO_TIMEOUT_SECONDS", "1.5", "a whole number"),
        ("HOROVOD_CACHE_CAPACITY", "-5", "a whole number"),
        ("HOROVOD_CONTROLLER", "nccl", "one of gloo, mpi"),
        ("OMP_STACKSIZE", "64G", "at most 16G, because every thread reserves as much"),
        ("OMP_STACKSIZE", "99999999999", "at most 16G, because every thread reserves as much"),
    ],
)
def test_invalid_value_is_refused(name: str, value: str, expected: str):
    with pytest.raises(
        UserError, match=rf"^{name}={re.escape(value[:40])}: should be {re.escape(expected)}; or unset it$"
    ):
        require_valid({"HOME": "/root", name: value})


def test_valid_values_are_accepted():
    require_valid(
        {
            "MXNET_CPU_WORKER_NTHREADS": "4", "MXNET_ENGINE_TYPE": "NaiveEngine", "MXNET_EXEC_BULK_EXEC_TRAIN": "false",
            "MXNET_MKLDNN_CACHE_NUM": "-1", "MXNET_SUBGRAPH_BACKEND": "MKLDNN", "MXNET_HOME": "/data",
            "OMP_STACKSIZE": " 512 m", "HOROVOD_CONTROLLER": "mpi", "HOROVOD_CACHE_CAPACITY": "0",
            "MXNET_CPU_TEMP_COPY": "", "MXNET_KVSTORE_BIGARRAY_BOUND": "2147483647",
        }
    )  # fmt: skip
    for fraction in ("0.7", "1e-3", "2.5E+3"):
        require_valid({"MXNET_KVSTORE_TREE_LINK_USAGE_PENALTY": fraction})
