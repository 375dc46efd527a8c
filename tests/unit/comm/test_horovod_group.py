"""What of the exchange needs no other ranks: who this worker is, and whose fault an error is."""

from types import SimpleNamespace

import pytest
from mxnet.base import MXNetError

from lstm_dist.comm.horovod_group import World, is_peer_failure


def test_a_worker_of_the_second_host_knows_its_places():
    facts = {"rank": 5, "size": 8, "local_rank": 1, "local_size": 4, "nccl_built": 0, "cuda_built": False}
    world = World(SimpleNamespace(**{name: (lambda value=value: value) for name, value in facts.items()}), None)
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
def test_the_loss_of_a_peer_is_told_from_a_mistake_of_ones_own(text: str):
    assert is_peer_failure(MXNetError(text))


@pytest.mark.parametrize(
    "error", [None, MXNetError("Check failed: shape"), BrokenPipeError(32, "Broken pipe"), OSError("Read timeout")]
)
def test_a_mistake_of_ones_own_is_not_the_loss_of_a_peer(error: Exception):
    assert not is_peer_failure(error)
