"""The parts of World that need no other ranks: its ranks, and the detection of errors caused by other ranks."""

import os
import sys
from types import SimpleNamespace
from typing import Dict

import pytest
from mxnet.base import MXNetError

from lstm_dist.cluster.launch_env import LAUNCHER_VARIABLES
from lstm_dist.comm.horovod_group import HorovodWorld, is_peer_failure


def test_world_takes_its_ranks_from_horovod():
    facts = {"rank": 5, "size": 8, "local_rank": 1, "local_size": 4, "nccl_built": 0, "cuda_built": False}
    world = HorovodWorld(SimpleNamespace(**{name: (lambda value=value: value) for name, value in facts.items()}), None)
    assert (world.rank, world.size, world.local_rank) == (5, 8, 1)
    assert not world.is_root
    assert not world.is_one_host


@pytest.mark.parametrize(("variables", "size"), [({"HOROVOD_CONTROLLER": "mpi"}, 8), ({}, 1)])
def test_world_of_an_unknown_launcher_is_that_of_mpi_if_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, variables: Dict[str, str], size: int
):
    facts = {"init": None, "rank": 5, "size": 8, "local_rank": 1, "local_size": 4, "nccl_built": 0, "cuda_built": False}
    hvd = SimpleNamespace(**{name: (lambda value=value: value) for name, value in facts.items()})
    monkeypatch.setitem(sys.modules, "horovod", SimpleNamespace(mxnet=hvd))
    monkeypatch.setitem(sys.modules, "horovod.mxnet", hvd)
    monkeypatch.setitem(sys.modules, "mpi4py", SimpleNamespace(MPI=None))
    environ = {k: v for k, v in os.environ.items() if not any(k in names for names in LAUNCHER_VARIABLES)}
    environ.pop("HOROVOD_CONTROLLER", None)
    monkeypatch.setattr(os, "environ", {**environ, **variables})
    assert HorovodWorld.open().size == size


@pytest.mark.parametrize(
    "text",
    [
        "Horovod has been shut down. This was caused by an exception on one of the ranks",
        'Traceback (most recent call last):\n  File "Read error [127.0.0.1]", line 5336\nMXNetError: Connection reset',
        "[gloo/transport/tcp/pair.cc:589] Read error [10.0.0.2]:21384: Connection reset by peer",
        "[gloo/transport/tcp/pair.cc:598] Connection closed by peer [10.0.0.2]:21384",
        "[gloo/transport/tcp/pair.cc:511] writev [10.0.0.2]:21384: Broken pipe",
        "[gloo/transport/tcp/unbound_buffer.cc:81] Timed out waiting 30000ms for recv operation to complete",
    ],
)
def test_error_caused_by_a_lost_peer_is_a_peer_failure(text: str):
    assert is_peer_failure(MXNetError(text))


@pytest.mark.parametrize(
    "error", [None, MXNetError("Check failed: shape"), BrokenPipeError(32, "Broken pipe"), OSError("Read timeout")]
)
def test_error_of_this_rank_is_not_a_peer_failure(error: Exception):
    assert not is_peer_failure(error)
