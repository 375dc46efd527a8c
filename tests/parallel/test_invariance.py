"""Training follows the same trajectory for any number of workers, whether or not it divides the number of streams."""

import hashlib

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.control_flags import NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LSTMState
from lstm_dist.model.parameters import initial_parameters
from lstm_dist.train.callbacks import Callbacks
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.interval import Interval, Intervals
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.step import NotFiniteError, Schedule
from lstm_dist.train.trainer import Trainer
from tests.support.fake_world import FakeWorld, Record

V, H, T = 29, 11, 6
STREAMS = 7  # a prime, so that neither 2 nor 3 workers divide it
EPOCHS = 4
TOKENS = np.random.default_rng(5).integers(0, V, STREAMS * (T * 9 + 1)).astype(np.int32)


def walk(
    world,
    sampling,
    reference_batch_size=32,
    seed_of_rank=0,
    max_norm=5.0,
    wire_dtype="float32",
    callbacks=None,
    layers=1,
    epochs=EPOCHS,
    uses_rows=False,
    every=Intervals(),  # noqa: B008 - a tuple
):
    """Train, and return the parameters under the D2L chapter's names, and the log.

    With `uses_rows`, only the rows of W_x of the batch's characters are exchanged.
    """
    model = CharLSTM(V, H, mx.cpu(), layers)
    named = initial_parameters(V, H, seed_of_rank, layers)
    named = {k: v if k.endswith("_2") else 20 * v for k, v in named.items()}
    model.load(named, "test")
    batches = batches_of(world, sampling, uses_rows)
    assert epochs * batches.steps_per_epoch >= 30
    numbers = schedule(world, sampling, reference_batch_size, max_norm, wire_dtype, epochs)._replace(every=every)
    log, evaluator = Record(), Evaluator(TOKENS[:200], STREAMS, T, world)
    Trainer(model, batches, world, numbers, log, callbacks or Callbacks(), evaluator=evaluator).run()
    return model.parameters.to_named(), log


def batches_of(world, sampling, uses_rows):
    kind = {"consecutive": ConsecutiveBatches, "random": RandomBatches}[sampling]
    return kind(TOKENS, STREAMS, T, world.rank, world.size, vocab_size=V if uses_rows else None)


def schedule(world, sampling, reference_batch_size=32, max_norm=5.0, wire_dtype="float32", epochs=EPOCHS):
    return Schedule(
        epochs=epochs,
        learning_rate=LearningRate(0.3),
        max_norm=max_norm,
        gradient_scale=world.size * reference_batch_size / STREAMS,
        wire_dtype=wire_dtype,
        resets_every_window=sampling == "random",
        chars_per_step=STREAMS * T,
    )


def same_trajectory(ours, log, theirs, their_log):
    for name, expected in theirs.items():
        # Relative to the parameter's largest element, because the relative error of an element near zero means nothing.
        difference = np.abs(ours[name] - expected).max() / np.abs(expected).max()
        assert difference < 1e-4, name
    np.testing.assert_allclose(log.losses, their_log.losses, rtol=5e-6)
    np.testing.assert_allclose(log.norms, their_log.norms, rtol=1e-4)


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
@pytest.mark.parametrize("reference_batch_size", [STREAMS, 32])
def test_any_world_size_follows_the_trajectory_of_one_worker(world, sampling, reference_batch_size):
    ours, log = walk(world, sampling, reference_batch_size)
    same_trajectory(ours, log, *walk(FakeWorld(), sampling, reference_batch_size))
    assert log.losses[-1] < log.losses[0]
    assert max(log.norms) > 5.0, "without active clipping, its position in the step is not tested"


@pytest.mark.parametrize(
    ("sampling", "wire_dtype", "layers"),
    [("consecutive", "float32", 1), ("random", "float32", 1), ("consecutive", "float16", 1), ("random", "float32", 2)],
)
def test_exchange_of_touched_rows_has_the_result_of_the_dense_exchange(world, sampling, wire_dtype, layers):
    # Without clipping the sum of squares does not matter, whose order differs.
    same = {"reference_batch_size": 1, "max_norm": 1e9, "wire_dtype": wire_dtype, "layers": layers, "epochs": 6}
    tolerance = 1e-6 if wire_dtype == "float32" else 1e-3
    dense, dense_log = walk(world, sampling, **same)
    ours, log = walk(world, sampling, uses_rows=True, **same)
    for name, expected in dense.items():
        if world.size < 3:  # with more workers, the order of a sum depends on the place in the vector
            np.testing.assert_array_equal(ours[name], expected, err_msg=name)
        np.testing.assert_allclose(ours[name], expected, rtol=0, atol=tolerance * np.abs(expected).max(), err_msg=name)
    np.testing.assert_allclose(log.norms, dense_log.norms, rtol=tolerance)


def test_touched_rows_are_clipped_by_the_norm_of_all_and_repeatable(world):
    (ours, log), (again, _) = (walk(world, "consecutive", uses_rows=True, epochs=6) for _ in range(2))
    same_trajectory(ours, log, *walk(world, "consecutive", epochs=6))
    same_trajectory(ours, log, *walk(FakeWorld(), "consecutive", epochs=6))
    assert max(log.norms) > 5.0, "without active clipping, the norm is not tested"
    for name, expected in ours.items():
        np.testing.assert_array_equal(again[name], expected, err_msg=name)


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_run_of_one_worker_continues_with_touched_rows_on_any_number(world, sampling):
    class LastCommit(Callbacks):
        def commit(self, progress, state):
            self.progress, self.state = progress, state

    alone, kept, model = FakeWorld(), LastCommit(), CharLSTM(V, H, mx.cpu())
    model.load({name: 20 * value for name, value in initial_parameters(V, H, 0).items()}, "test")
    begun = Trainer(model, batches_of(alone, sampling, True), alone, schedule(alone, sampling), Record(), kept)
    begun.run(until_step=13)
    assert (kept.progress.epoch, kept.progress.position) == (1, 4), "in the middle of an epoch"
    batches, log = batches_of(world, sampling, True), Record()
    state = LSTMState(*(part[batches.rows] for part in kept.state))
    numbers = schedule(world, sampling)
    Trainer(model, batches, world, numbers, log, Callbacks(), kept.progress, state).run()
    expected, expected_log = walk(alone, sampling)
    log.losses[:0], log.norms[:0] = expected_log.losses[:1], expected_log.norms[:1]  # of the epoch before
    same_trajectory(model.get_parameters(), log, expected, expected_log)


def test_two_layers_follow_the_trajectory_of_one_worker(world):
    ours, log = walk(world, "consecutive", layers=2)
    same_trajectory(ours, log, *walk(FakeWorld(), "consecutive", layers=2))
    begun = initial_parameters(V, H, 0, layers=2)["W_hf_2"]
    assert np.abs(ours["W_hf_2"] - begun).max() > 0.001, "the second layer is not trained"


def test_clipping_changes_the_trajectory(world):
    clipped, _ = walk(world, "consecutive")
    free, _ = walk(world, "consecutive", max_norm=1e6)
    assert np.abs(clipped["W_hy"] - free["W_hy"]).max() > 1e-3


def test_ranks_with_different_initial_weights_end_with_equal_bits(world):
    ours, _ = walk(world, "consecutive", seed_of_rank=world.rank)
    digest = hashlib.sha256(b"".join(ours[name].tobytes() for name in sorted(ours))).hexdigest()
    assert len(set(world.allgather_object(digest, "digests"))) == 1
    roots, _ = walk(world, "consecutive", seed_of_rank=0)
    np.testing.assert_array_equal(ours["W_xi"], roots["W_xi"])


def test_float16_communication_keeps_the_ranks_bit_identical(world):
    half, log = walk(world, "consecutive", wire_dtype="float16")
    digest = hashlib.sha256(b"".join(half[name].tobytes() for name in sorted(half))).hexdigest()
    assert len(set(world.allgather_object(digest, "half_digests"))) == 1
    full, log_full = walk(world, "consecutive")
    difference = max(np.abs(half[name] - full[name]).max() / np.abs(full[name]).max() for name in full)
    assert difference < 0.02
    assert (difference > 1e-6) == (world.size > 1), "only communication rounds, and a world of one has none"
    np.testing.assert_allclose(log.losses, log_full.losses, rtol=1e-3)


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_repeated_run_is_bit_identical(world, sampling):
    first, log = walk(world, sampling)
    second, log_again = walk(world, sampling)
    assert log.losses == log_again.losses
    for name, value in first.items():
        np.testing.assert_array_equal(value, second[name], err_msg=name)


class RequestOnce(Callbacks):
    """Callbacks that return the flags once, on one rank before one step, and record the commits."""

    def __init__(self, world, rank, step, flags):
        self._mine, self._step, self._flags, self._asked = world.rank == rank % world.size, step, flags, 0
        self.commits = []

    def requests(self):
        self._asked += 1
        return self._flags if self._mine and self._asked == self._step else NO_REQUEST

    def commit(self, progress, state):  # noqa: ARG002
        self.commits.append(progress.step)


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("flags", [ControlFlags(stop=True), ControlFlags(checkpoint=True)], ids=["stop", "checkpoint"])
@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_request_of_one_rank_is_executed_by_all_after_the_same_step(world, rank, flags, wire_dtype):
    once = RequestOnce(world, rank, 12, flags)
    walk(world, "consecutive", callbacks=once, wire_dtype=wire_dtype)
    assert once.commits[1] in (12, 13)
    assert (len(once.commits) == 2) == flags.stop
    assert len(set(world.allgather_object(str(once.commits), "commits"))) == 1


@pytest.mark.parametrize("sampling", ["consecutive", "random"])
def test_reports_and_evaluations_inside_epochs_do_not_change_the_weights(world, sampling):
    every = Intervals(log=Interval(steps=4), evaluation=Interval(steps=7))
    plain, _ = walk(world, sampling)
    watched, log = walk(world, sampling, every=every)
    for name, value in plain.items():
        np.testing.assert_array_equal(watched[name], value, err_msg=name)
    _, alone = walk(FakeWorld(), sampling, every=every)
    assert [report.step for report in log.reports] == [report.step for report in alone.reports]
    assert [report.step for report in log.reports if report.valid_perplexity] == [7, 14, 21, 28, 35]
    for ours, theirs in zip(log.reports, alone.reports):
        assert ours.loss == pytest.approx(theirs.loss, rel=5e-6)
        assert (ours.valid_perplexity or 0.0) == pytest.approx(theirs.valid_perplexity or 0.0, rel=1e-4)


@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_what_is_due_by_the_clock_of_the_root_is_done_by_all_after_the_same_step(world, wire_dtype):
    once = RequestOnce(world, 0, 12, ControlFlags(report=True, evaluate=True))
    ours, log = walk(world, "consecutive", callbacks=once, wire_dtype=wire_dtype)
    plain, _ = walk(world, "consecutive", wire_dtype=wire_dtype)
    for name, value in plain.items():
        np.testing.assert_array_equal(ours[name], value, err_msg=name)
    found = [(report.step, report.loss, report.valid_perplexity) for report in log.reports]
    assert [(step, valid is not None) for step, _, valid in found] == [
        (13, True)
    ], "the report comes with the evaluation"
    assert len(set(world.allgather_object(str(found), "reports"))) == 1


@pytest.mark.parametrize("rank", [0, 1, 2])
@pytest.mark.parametrize("wire_dtype", ["float32", "float16"])
def test_non_finite_loss_on_one_rank_stops_all_at_the_same_step(world, rank, wire_dtype, monkeypatch):
    original, seen = CharLSTM.loss_and_gradients, []

    def poisoned(self, *window):
        seen.append(1)
        if len(seen) == 8 and world.rank == rank % world.size:
            self.parameters.views["b_y"][:] = float("nan")
        return original(self, *window)

    monkeypatch.setattr(CharLSTM, "loss_and_gradients", poisoned)
    with pytest.raises(NotFiniteError):
        walk(world, "consecutive", wire_dtype=wire_dtype)
    numbers = set(world.allgather_object(len(seen), "seen"))
    assert numbers == {9}, "the loss of step 8 becomes known during step 9"
