"""The invariant: any number of workers, dividing the streams or not, walks the same trajectory."""

import hashlib

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.batches import ConsecutiveBatches, RandomBatches
from lstm_dist.model import CharLSTM, initial_parameters
from lstm_dist.trainer import Schedule, train
from tests.alone import Alone, Record

V, H, T = 29, 11, 6
STREAMS = 7  # a prime, so that neither 2 nor 3 workers divide it
EPOCHS = 4
TOKENS = np.random.default_rng(5).integers(0, V, STREAMS * (T * 9 + 1)).astype(np.int32)


def walk(world, sampling, reference_batch_size=32, seed_of_rank=0, max_norm=5.0, wire_dtype="float32"):
    """Train; returns the parameters under the document's names and the log."""
    kind = {"consecutive": ConsecutiveBatches, "random": RandomBatches}[sampling]
    model = CharLSTM(V, H, mx.cpu())
    named = {k: 20 * v for k, v in initial_parameters(V, H, seed=seed_of_rank).items()}
    model.load(named, "test")
    batches = kind(TOKENS, STREAMS, T, world.rank, world.size)
    assert EPOCHS * batches.steps_per_epoch >= 30
    schedule = Schedule(
        epochs=EPOCHS,
        learning_rate=0.3,
        max_norm=max_norm,
        gradient_scale=world.size * reference_batch_size / STREAMS,
        wire_dtype=wire_dtype,
        resets_every_window=sampling == "random",
        chars_per_step=STREAMS * T,
        log_every=100,
    )
    log = Record()
    train(model, batches, world, schedule, log, lambda _: None)
    return model.parameters.to_document(), log


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
@pytest.mark.parametrize("reference_batch_size", [STREAMS, 32])
def test_every_world_walks_the_trajectory_of_one(world, sampling, reference_batch_size):
    ours, log = walk(world, sampling, reference_batch_size)
    alone, log_alone = walk(Alone(), sampling, reference_batch_size)
    for name, expected in alone.items():
        # Relative to the parameter's own size: an element near zero has no relative error of its own.
        difference = np.abs(ours[name] - expected).max() / np.abs(expected).max()
        assert difference < 1e-4, name
    np.testing.assert_allclose(log.losses, log_alone.losses, rtol=5e-6)
    np.testing.assert_allclose(log.norms, log_alone.norms, rtol=1e-4)
    assert log.losses[-1] < log.losses[0]
    assert max(log.norms) > 5.0, "the clip has to be active, or its place would not matter"


def test_without_the_clip_it_is_another_trajectory(world):
    clipped, _ = walk(world, "consecutive")
    free, _ = walk(world, "consecutive", max_norm=1e6)
    assert np.abs(clipped["W_hy"] - free["W_hy"]).max() > 1e-3


def test_all_ranks_hold_the_same_bits_even_when_they_start_apart(world):
    ours, _ = walk(world, "consecutive", seed_of_rank=world.rank)
    digest = hashlib.sha256(b"".join(ours[name].tobytes() for name in sorted(ours))).hexdigest()
    assert len(set(world.gather_text(digest, "digests"))) == 1
    roots, _ = walk(world, "consecutive", seed_of_rank=0)
    np.testing.assert_array_equal(ours["W_xi"], roots["W_xi"])


def test_half_the_bytes_round_the_trajectory_and_keep_the_ranks_together(world):
    half, log = walk(world, "consecutive", wire_dtype="float16")
    digest = hashlib.sha256(b"".join(half[name].tobytes() for name in sorted(half))).hexdigest()
    assert len(set(world.gather_text(digest, "half_digests"))) == 1
    full, log_full = walk(world, "consecutive")
    difference = max(np.abs(half[name] - full[name]).max() / np.abs(full[name]).max() for name in full)
    assert difference < 0.02
    assert (difference > 1e-6) == (world.size > 1), "a world of one sends nothing and rounds nothing"
    np.testing.assert_allclose(log.losses, log_full.losses, rtol=1e-3)


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_a_repeated_run_is_bit_identical(world, sampling):
    first, log = walk(world, sampling)
    second, log_again = walk(world, sampling)
    assert log.losses == log_again.losses
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)
