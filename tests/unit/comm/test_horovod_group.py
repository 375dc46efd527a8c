"""The parts of World that need no other ranks: its ranks, and the detection of errors caused by other ranks."""

from types import SimpleNamespace

import pytest
from mxnet.base import MXNetError

from lstm_dist.comm.horovod_group import HorovodWorld, is_peer_failure


def test_world_takes_its_ranks_from_horovod():
    facts = {"rank": 5, "size": 8, "local_rank": 1, "local_size": 4, "nccl_built": 0, "cuda_built": False}
    world = HorovodWorld(SimpleNamespace(**{name: (lambda value=value: value) for name, value in facts.items()}), None)
    assert (world.rank, world.size, world.local_rank) == (5, 8, 1)
    assert not world.is_root
    assert not world.is_one_host


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
