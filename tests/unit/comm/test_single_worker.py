"""A world of one worker returns its own values, bit for bit, and loads neither Horovod nor MPI."""

import subprocess
import sys

import numpy as np
import pytest
from mxnet import nd

from lstm_dist.comm.rank_group import SingleRank
from lstm_dist.comm.single_worker import SingleWorker
from tests.support.launchers import LEFTOVERS
from tests.support.programs import ROOT, environment

VALUES = np.array([5.0, 0.0, -0.0, 1e-45, -3e38, np.inf, 0.1], np.float32)


def test_collectives_keep_every_bit():
    world = SingleWorker()
    array = nd.array(VALUES)
    world.average_(array, "plain", wire_dtype="float16")
    world.broadcast_(array, "broadcast")
    assert array.asnumpy().tobytes() == VALUES.tobytes()
    assert world.gather_rows(array, "rows").tobytes() == VALUES.tobytes()
    total = world.sum([0.1, 1e9], "sum")
    assert (total.dtype, total.tolist()) == (np.float64, [0.1, 1e9])
    assert world.allgather_object({"字": [1, None]}, "object") == [{"字": [1, None]}]


def test_average_is_scaled():
    array = nd.array([1.0, -2.0])
    SingleWorker().average_(array, "scaled", scale=3.0)
    assert array.asnumpy().tolist() == [3.0, -6.0]


def test_single_rank_sums_nothing():
    counts = np.array([1, 2])
    SingleRank().sum_(counts)
    assert counts.tolist() == [1, 2]
    assert SingleRank().allgather_object("a", "names") == ["a"]


CODE = """
import sys
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.mpi_group import MpiGroup
with HorovodWorld.open() as world, MpiGroup.open() as group:
    assert (world.size, world.controller, group.size) == (1, "none", 1)
assert not {"horovod", "mpi4py"} & set(sys.modules)
"""


@pytest.mark.slow
def test_leftovers_of_launchers_load_neither_horovod_nor_mpi():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, env=environment(LEFTOVERS), capture_output=True, text=True, timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
