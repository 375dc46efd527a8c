"""The training loop: the state between windows, the order of averaging and clipping, checkpoints and stops."""

import math
import threading
import time

import mxnet as mx
import numpy as np
import pytest

from lstm_dist.data.batching import ConsecutiveBatches
from lstm_dist.model.char_lstm import CharLSTM
from lstm_dist.model.control_flags import FLAGS, NO_REQUEST, ControlFlags
from lstm_dist.model.language_model import LSTMState
from lstm_dist.model.parameters import initial_parameters
from lstm_dist.run.step_times import PARTS
from lstm_dist.train.callbacks import BEGINNING, Callbacks, Progress
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.interval import Interval, Intervals
from lstm_dist.train.lr_schedule import LearningRate
from lstm_dist.train.step import NotFiniteError, train_step
from lstm_dist.train.trainer import Trainer
from tests.support.fake_world import FakeWorld, Record
from tests.support.small_training import TOKENS, B, H, T, V, schedule


class Watched(CharLSTM):
    """A CharLSTM that records the state before and after each window."""

    def __init__(self):
        super().__init__(V, H, mx.cpu())
        self.load(initial_parameters(V, H, 0), "test")
        self.starts, self.ends = [], []

    def loss_and_gradients(self, inputs, targets, state, requests=NO_REQUEST, characters=None):
        loss, after = super().loss_and_gradients(inputs, targets, state, requests, characters)
        self.starts.append(np.stack([s.asnumpy() for s in state]))
        self.ends.append(np.stack([s.asnumpy() for s in after]))
        return loss, after


class Kept(Callbacks):
    """Makes the given requests by step, and records what it is called with."""

    def __init__(self, by_step=None):
        self.by_step, self.steps, self.samples, self.commits, self.beats, self.model = (
            by_step or {},
            0,
            [],
            [],
            [],
            None,
        )

    def requests(self):
        self.steps += 1
        return self.by_step.get(self.steps, NO_REQUEST)

    def beat(self, phase, step):
        self.beats.append((phase, step))

    def write_samples(self, epoch):
        self.samples.append(epoch)

    def commit(self, progress, state):
        weights = self.model.parameters.flat.asnumpy() if self.model else None
        self.commits.append((progress, weights, [part.asnumpy() for part in state]))


def trainer(model, log=None, callbacks=None, progress=BEGINNING, state=None, evaluator=None, **changes):
    callbacks = callbacks or Kept()
    callbacks.model = model
    batches = ConsecutiveBatches(TOKENS, B, T)
    world, plan = FakeWorld(), schedule(**changes)
    return Trainer(model, batches, world, plan, log or Record(), callbacks, progress, state, evaluator)


def run(model, log=None, callbacks=None, **changes):
    log = log or Record()
    trainer(model, log, callbacks, **changes).run()
    return log


def test_every_step_uses_the_learning_rate_of_its_number():
    frozen, one = Watched(), Watched()
    run(frozen, learning_rate=LearningRate(0.5, "step", every=1, factor=0.0))  # only the first step changes weights
    trainer(one, learning_rate=LearningRate(0.5)).run(until_step=1)
    np.testing.assert_array_equal(frozen.parameters.flat.asnumpy(), one.parameters.flat.asnumpy())
    progress = Progress(step=3, position=3)
    later = Watched()
    before = later.parameters.flat.asnumpy()
    rate = LearningRate(0.5, "step", every=3, factor=0.0)
    trainer(later, progress=progress, state=later.zero_state(B), learning_rate=rate, epochs=1).run()
    np.testing.assert_array_equal(later.parameters.flat.asnumpy(), before)


def test_state_is_carried_through_an_epoch_and_zeroed_at_its_start():
    model = Watched()
    run(model)
    assert len(model.starts) == 8
    for step in range(8):
        if step % 4 == 0:
            assert not model.starts[step].any()
        else:
            np.testing.assert_array_equal(model.starts[step], model.ends[step - 1])
            assert model.starts[step].any()


def test_state_can_be_zeroed_before_every_window():
    model = Watched()
    run(model, resets_every_window=True)
    assert not any(start.any() for start in model.starts)
    assert all(end.any() for end in model.ends)


def test_gradients_are_averaged_then_clipped_then_applied():
    class Doubling(FakeWorld):
        def average_(self, array, name, scale=1.0, wire_dtype="float32"):
            assert (name, wire_dtype) == (f"gradients_{array.size}", "float32")
            array *= 2 * scale

    window = next(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    reference = Watched()
    reference.loss_and_gradients(window.inputs, window.targets, reference.zero_state(B))
    gradients = {name: 2 * 3.0 * gradient for name, gradient in reference.get_gradients().items()}
    norm = np.linalg.norm(np.concatenate([gradient.ravel() for gradient in gradients.values()]))
    before = reference.get_parameters()

    model = Watched()
    numbers = schedule(gradient_scale=3.0, max_norm=0.25)
    _, result = train_step(model, window, model.zero_state(B), Doubling(), numbers)
    assert result.read()[1] == pytest.approx(norm, rel=1e-5)
    assert norm > 0.25
    for name, after in model.get_parameters().items():
        expected = before[name] - 0.01 * gradients[name] * 0.25 / norm
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=1e-7, err_msg=name)


def test_log_every_decides_which_epochs_are_shown_and_sampled():
    kept = Kept()
    log = run(Watched(), callbacks=kept, epochs=5)
    assert log.shown == kept.samples == [2, 4, 5], "every log_every epochs, and the last one"
    assert log.chars == 5 * 4 * B * T
    assert len(log.losses) == 5
    assert log.losses[0] == pytest.approx(np.log(V), rel=0.02)
    assert log.losses == sorted(log.losses, reverse=True)


def test_mean_loss_is_over_the_characters_of_all_workers():
    log = run(Watched(), chars_per_step=2 * B * T)
    assert log.losses[0] == pytest.approx(np.log(V) / 2, rel=0.02), "half of the characters belong to another worker"


@pytest.mark.parametrize("where", ["W_x", "W_h", "b", "W_hy", "b_y"])
def test_non_finite_weights_stop_the_run_at_that_step(where):
    model, log, kept = Watched(), Record(), Kept()
    job = trainer(model, log, kept)
    original = model.loss_and_gradients

    def poisoned(inputs, targets, state, requests, characters):
        if len(model.starts) == 2:  # the third step
            model.parameters.views[where].reshape(-1)[:1] = float("nan")
        return original(inputs, targets, state, requests, characters)

    model.loss_and_gradients = poisoned
    with pytest.raises(NotFiniteError, match="loss nan"):
        job.run()
    assert job.progress.step == 2
    assert not log.losses
    assert [progress.step for progress, _, _ in kept.commits] == [0]


def test_non_finite_loss_makes_the_control_flags_nan():
    model = Watched()
    window = next(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    model.loss_and_gradients(window.inputs, window.targets, model.zero_state(B))
    assert model.gradients.flags.asnumpy().tolist() == [0.0] * FLAGS
    model.parameters.views["b_y"][:1] = float("inf")
    model.loss_and_gradients(window.inputs, window.targets, model.zero_state(B))
    assert np.isnan(model.gradients.flags.asnumpy()).all()


# Stop requests and checkpoints


def uninterrupted(epochs=3):
    kept = Kept()
    log = run(Watched(), callbacks=kept, epochs=epochs)
    return kept.commits[-1], log


def test_checkpoints_before_the_first_step_and_after_the_last():
    kept = Kept()
    run(Watched(), callbacks=kept, epochs=3)
    assert [(p.step, p.epoch, p.position) for p, _, _ in kept.commits] == [(0, 0, 0), (12, 3, 0)]


def test_checkpoint_every_n_epochs():
    kept = Kept()
    run(Watched(), callbacks=kept, epochs=5, every=Intervals(checkpoint=Interval(epochs=2)))
    assert [p.epoch for p, _, _ in kept.commits] == [0, 2, 4, 5]


@pytest.mark.parametrize("requested", range(1, 11))
def test_stopped_run_that_is_resumed_is_bit_identical(requested):
    """A run stops at most one step after the request, and the resumed run ends with the same bits."""
    kept = Kept({requested: ControlFlags(stop=True)})
    model, first = Watched(), Record()
    job = trainer(model, first, kept, epochs=3)
    assert job.run().was_stopped
    progress, weights, state = kept.commits[-1]
    assert requested <= progress.step <= requested + 1
    assert progress.step == job.progress.step

    model = Watched()
    model.parameters.flat[:] = weights
    later, second = Kept(), Record()
    on = LSTMState(*(mx.nd.array(part) for part in state))
    assert not trainer(model, second, later, progress, on, epochs=3).run().was_stopped
    (_, expected, _), log = uninterrupted()
    np.testing.assert_array_equal(later.commits[-1][1], expected)
    assert [*first.losses, *second.losses] == pytest.approx(log.losses, rel=1e-12)
    assert [*first.norms, *second.norms] == pytest.approx(log.norms, rel=1e-12)


class Slow:
    """An evaluator that is interrupted before it finishes."""

    def evaluate(self, *_):
        raise InterruptedError


@pytest.mark.parametrize("interval", [lambda step: Interval(epochs=step // 4), lambda step: Interval(steps=step)])
@pytest.mark.parametrize("requested", [4, 8])
def test_stop_at_the_end_of_an_epoch_is_committed_before_validation(requested, interval):
    kept, first = Kept({requested: ControlFlags(stop=True)}), Record()
    every = Intervals(log=Interval(epochs=2), evaluation=interval(requested))
    job = trainer(Watched(), first, kept, epochs=3, every=every, evaluator=Slow())
    with pytest.raises(InterruptedError):
        job.run()
    progress, weights, state = kept.commits[-1]
    assert (progress.step, progress.epoch, progress.position) == (requested, requested // 4 - 1, 4)

    model, second, later = Watched(), Record(), Kept()
    model.parameters.flat[:] = weights
    on = LSTMState(*(mx.nd.array(part) for part in state))
    assert not trainer(model, second, later, progress, on, epochs=3).run().was_stopped
    (_, expected, _), log = uninterrupted()
    np.testing.assert_array_equal(later.commits[-1][1], expected)
    assert [*first.losses, *second.losses] == pytest.approx(log.losses, rel=1e-12)


@pytest.mark.parametrize("requested", range(1, 11))
def test_requested_checkpoint_does_not_change_the_result(requested):
    kept = Kept({requested: ControlFlags(checkpoint=True)})
    log = run(Watched(), callbacks=kept, epochs=3)
    (_, expected, _), plain = uninterrupted()
    np.testing.assert_array_equal(kept.commits[-1][1], expected)
    assert log.losses == pytest.approx(plain.losses, rel=1e-12)
    (middle,) = [p for p, _, _ in kept.commits[1:-1]]
    assert requested <= middle.step <= requested + 1


def test_replay_ends_with_the_weights_of_the_requested_step():
    stopped = Kept({6: ControlFlags(stop=True)})
    trainer(Watched(), callbacks=stopped, epochs=3).run()
    target, expected, _ = stopped.commits[-1]
    model, kept = Watched(), Kept({1: ControlFlags(checkpoint=True)})
    job = trainer(model, callbacks=kept, epochs=3)
    job.replay(Progress(), model.zero_state(B), target.step)
    assert kept.commits[-1][0].step == target.step
    np.testing.assert_array_equal(kept.commits[-1][1], expected)
    assert kept.samples == []


def test_a_replay_can_be_stopped():
    model, kept = Watched(), Kept({2: ControlFlags(stop=True)})
    trainer(model, callbacks=kept, epochs=3).replay(Progress(), model.zero_state(B), 11)
    assert 2 <= kept.commits[-1][0].step <= 3


def test_every_step_is_reported_to_the_watchdog():
    kept = Kept()
    run(Watched(), callbacks=kept, epochs=2)
    assert kept.beats == [
        ("checkpoint", 0),
        *(("step", k) for k in range(9)),
        ("samples", 8),
        ("checkpoint", 8),
    ]


WAITING = ["MXNDArrayWaitToRead", "MXNDArrayWaitToWrite", "MXNDArrayWaitAll", "MXNDArraySyncCopyToCPU"]


def test_step_makes_no_blocking_call(monkeypatch):
    model, windows = CharLSTM(V, H, mx.cpu()), list(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    state, waited = model.zero_state(B), []

    def count(name):
        original = getattr(mx.base._LIB, name)
        monkeypatch.setattr(mx.base._LIB, name, lambda *arguments: waited.append(name) or original(*arguments))

    for name in WAITING:
        count(name)
    for window in windows:
        state, result = train_step(model, window, state, FakeWorld(), schedule())
    assert waited == []
    result.read()
    assert waited == ["MXNDArraySyncCopyToCPU"], "the counter must detect a blocking call"


class Gate(mx.operator.CustomOp):
    """An operator that returns its input, but blocks until the test opens it."""

    opened = threading.Event()

    def forward(self, is_train, req, in_data, out_data, aux):  # noqa: ARG002
        assert Gate.opened.wait(60)
        self.assign(out_data[0], req[0], in_data[0])


@mx.operator.register("lstm_dist_test_gate")
class GateProperty(mx.operator.CustomOpProp):
    def create_operator(self, ctx, shapes, dtypes):  # noqa: ARG002
        return Gate()


def test_step_returns_before_its_inputs_have_been_computed():
    model, windows = CharLSTM(V, H, mx.cpu()), list(ConsecutiveBatches(TOKENS, B, T).epoch(1))
    state, _ = train_step(model, windows[0], model.zero_state(B), FakeWorld(), schedule())
    mx.nd.waitall()
    mx.nd.Custom(model.parameters.flat, op_type="lstm_dist_test_gate", out=model.parameters.flat)
    opener = threading.Timer(30, Gate.opened.set)  # so that a blocking step fails the test instead of hanging it
    opener.start()
    for window in windows[1:]:
        state, result = train_step(model, window, state, FakeWorld(), schedule())
    was_open = Gate.opened.is_set()
    Gate.opened.set()
    opener.cancel()
    assert not was_open
    assert np.isfinite(result.read()[0])


def resident_kb():
    with open("/proc/self/status", encoding="ascii") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))


def test_memory_does_not_grow_with_the_steps_of_an_epoch():
    class Repeated(ConsecutiveBatches):
        def epoch(self, epoch, start=0):
            for _ in range(300):
                yield from once.epoch(epoch, start)

    model, log = CharLSTM(V, H, mx.cpu()), Record()
    model.load(initial_parameters(V, H, 0), "test")
    once, batches = ConsecutiveBatches(TOKENS, B, T), Repeated(TOKENS, B, T)
    batches.steps_per_epoch *= 300
    Trainer(model, batches, FakeWorld(), schedule(epochs=1), log, Callbacks()).run()
    before = resident_kb()
    Trainer(model, batches, FakeWorld(), schedule(epochs=1), log, Callbacks()).run()
    assert log.chars == 2 * 1200 * B * T
    assert resident_kb() - before < 500


def test_run_ends_with_the_first_epoch_at_the_target_perplexity():
    whole = run(Watched(), epochs=5)
    target = float(np.exp(whole.losses[2])) + 1e-9
    kept = Kept()
    log = run(Watched(), callbacks=kept, epochs=5, until_perplexity=target)
    assert log.losses == whole.losses[:3]
    assert log.shown == kept.samples == [2, 3]
    assert [progress.epoch for progress, _, _ in kept.commits] == [0, 3]


class Metered(Kept):
    """Accounts for 10 J of packages and 3 J of GPUs in every step, and for 1000 J of packages in every sample."""

    def __init__(self, gpus_are_known=True):
        super().__init__()
        self.gpu_joules = 3.0 if gpus_are_known else math.nan

    def joules(self):
        return 10.0 * self.steps + 1000.0 * len(self.samples), self.gpu_joules * self.steps


@pytest.mark.parametrize("size", [1, 2])
def test_energy_of_an_epoch_is_that_of_its_steps_on_all_workers(size):
    class Metrics(Record):
        def epoch(self, metrics, show):
            super().epoch(metrics, show)
            self.energy = [*getattr(self, "energy", []), (metrics.package_joules, metrics.gpu_joules)]

    known, unknown = Metrics(), Metrics()
    for log, callbacks in ((known, Metered()), (unknown, Metered(gpus_are_known=False))):
        batches = ConsecutiveBatches(TOKENS, B, T, 0, size)
        Trainer(Watched(), batches, FakeWorld(size=size), schedule(), log, callbacks).run()
    assert known.energy == [(40.0 * size, 12.0 * size)] * 2
    assert unknown.energy == [(40.0 * size, None)] * 2
    assert known.losses == unknown.losses


def test_profiling_does_not_change_the_weights():
    plain, timed = Watched(), Watched()
    run(plain)
    before = time.time()
    log = run(timed, time_every=3)
    np.testing.assert_array_equal(plain.parameters.flat.asnumpy(), timed.parameters.flat.asnumpy())
    assert [(epoch, row["step"], row["rank"]) for epoch, row in log.parts] == [(1, 3, 0), (2, 6, 0)]
    for _, row in log.parts:
        assert list(row) == ["rank", "host", "step", "bytes", "started", *PARTS]
        assert all(0 <= row[part] < 10 for part in PARTS)
        assert before <= row["started"] <= row["started"] + sum(row[part] for part in PARTS) <= time.time()
        before = row["started"]


def test_times_of_an_epoch_come_before_its_line():
    class Ordered(Record):
        def epoch(self, metrics, show):
            super().epoch(metrics, show)
            assert {epoch for epoch, _ in self.parts} == set(range(1, metrics.epoch + 1)), "the line tells of them"

    log = run(Watched(), Ordered(), epochs=3, time_every=2)
    assert len(log.losses) == 3


@pytest.mark.parametrize(("wire_dtype", "width"), [("float32", 4), ("float16", 2)])
def test_profiles_have_the_bytes_of_each_exchanged_vector(wire_dtype, width):
    world, log = FakeWorld(size=2), Record()
    batches = ConsecutiveBatches(TOKENS, B, T, 0, 2, vocab_size=V)
    plan = schedule(time_every=1, wire_dtype=wire_dtype)
    Trainer(Watched(), batches, world, plan, log, Kept()).run()
    assert {name for _, name in world.averaged} == {wire_dtype}
    sent = [width * length for length, _ in world.averaged]
    assert [row["bytes"] for _, row in log.parts if row["rank"] == 0] == sent
    assert len(set(sent)) > 1, "the batches have different numbers of characters"


@pytest.mark.parametrize("part", PARTS)
def test_delay_is_attributed_to_its_part_of_the_step(part, monkeypatch):
    def slowly(function):
        return lambda *arguments, **named: (time.sleep(0.05), function(*arguments, **named))[1]

    model = Watched()
    log = Record()
    job = trainer(model, log, time_every=4)
    if part == "data":
        batches = ConsecutiveBatches(TOKENS, B, T)
        epoch = batches.epoch
        batches.epoch = lambda *place: map(slowly(lambda window: window), epoch(*place))
        job._batches = batches
    else:
        owner, name = {
            "compute": (model, "loss_and_gradients"),
            "wait": (job._world, "sum"),
            "wire": (job._world, "average_"),
            "update": (model, "sgd_update_"),
        }[part]
        monkeypatch.setattr(owner, name, slowly(getattr(owner, name)))
    job._world.size = 2 if part == "wait" else 1  # a single worker does not wait
    job.run()
    for _, row in log.parts:
        assert [other for other in PARTS if row[other] > 0.045] == [part]


def test_pending_stop_request_prevents_a_profiled_step():
    kept = Kept({2: ControlFlags(stop=True)})
    model = Watched()
    assert trainer(model, Record(), kept, time_every=3).run().was_stopped
    assert len(model.starts) == 2
    assert [progress.step for progress, _, _ in kept.commits] == [0, 2]


# Reports and evaluations inside epochs

VALIDATION = np.random.default_rng(1).integers(0, V, 60).astype(np.int32)
EVERY = [
    Intervals(log=Interval(steps=1)),
    Intervals(log=Interval(steps=3), evaluation=Interval(steps=5)),
    Intervals(log=Interval(epochs=1), evaluation=Interval(steps=2)),
    Intervals(log=Interval(steps=4), evaluation=Interval(epochs=1), checkpoint=Interval(steps=3)),
    Intervals(log=Interval(steps=7), evaluation=Interval(steps=7), checkpoint=Interval(steps=7)),
]


def evaluator():
    return Evaluator(VALIDATION, 2, T, FakeWorld())


def facts(reports):
    """Return what does not depend on the clock."""
    return [report._replace(seconds=0.0, chars_per_sec=0.0) for report in reports]


@pytest.mark.parametrize("every", EVERY)
def test_weights_and_states_are_bit_identical_with_any_intervals(every):
    plain, watched, kept, log = Watched(), Watched(), Kept(), Record()
    trainer(plain, callbacks=Kept(), epochs=4).run()
    trainer(watched, log, kept, epochs=4, every=every, evaluator=evaluator()).run()
    np.testing.assert_array_equal(plain.parameters.flat.asnumpy(), watched.parameters.flat.asnumpy())
    np.testing.assert_array_equal(plain.starts, watched.starts)
    np.testing.assert_array_equal(plain.ends, watched.ends)
    assert log.reports or every.log.epochs


def test_reports_cover_all_steps_once():
    """Against the loss, norm and learning rate of every step; an epoch has 4 of them."""
    rate = LearningRate(0.5, "step", every=2, factor=0.5)
    numbers = {"epochs": 3, "learning_rate": rate}
    single = run(Watched(), every=Intervals(log=Interval(steps=1)), **numbers).reports
    assert [report.step for report in single] == list(range(1, 13))
    assert [report.epoch for report in single] == [k / 4 for k in range(1, 13)]
    assert [report.learning_rate for report in single] == [rate.at(k) for k in range(12)]
    log = run(Watched(), every=Intervals(log=Interval(steps=5)), **numbers)
    assert [(report.step, report.steps, report.epoch) for report in log.reports] == [(5, 5, 1.25), (10, 5, 2.5)]
    for report, steps in zip(log.reports, (single[:5], single[5:10])):
        assert report.loss == pytest.approx(np.mean([step.loss for step in steps]), rel=1e-12)
        assert report.grad_norm == pytest.approx(np.mean([step.grad_norm for step in steps]), rel=1e-12)
        assert report.perplexity == pytest.approx(np.exp(report.loss))
        assert report.learning_rate == steps[-1].learning_rate
        assert report.valid_perplexity is None
    assert log.losses == pytest.approx([np.mean([s.loss for s in single[k : k + 4]]) for k in (0, 4, 8)], rel=1e-12)


def test_evaluation_inside_an_epoch_is_that_of_the_weights_after_its_step():
    log = Record()
    every = Intervals(log=Interval(steps=4), evaluation=Interval(steps=3))
    trainer(Watched(), log, epochs=3, every=every, evaluator=evaluator()).run()
    assert [(report.step, report.steps) for report in log.reports] == [(3, 3), (4, 1), (6, 2), (8, 2), (9, 1), (12, 3)]
    assert [report.step for report in log.reports if report.valid_perplexity is not None] == [3, 6, 9, 12]
    assert log.valid == [None, None, log.reports[-1].valid_perplexity], "the epoch ends with an evaluation"
    for report in log.reports:
        if report.valid_perplexity is not None:
            model = Watched()
            trainer(model, epochs=3).run(until_step=report.step)
            assert report.valid_perplexity == pytest.approx(np.exp(evaluator().evaluate(model).loss), rel=1e-12)


def test_a_report_does_not_wait_for_the_step_that_has_started():
    model, started = Watched(), []

    class Started(Record):
        def report(self, report):
            started.append((report.step, len(model.starts)))

    every = Intervals(log=Interval(steps=1), evaluation=Interval(steps=3))
    trainer(model, Started(), epochs=2, every=every, evaluator=evaluator()).run()
    # Steps 3 and 6 are evaluated before the next one starts; steps 4 and 8 are the last of their epochs.
    assert started == [(1, 2), (2, 3), (3, 3), (4, 4), (5, 6), (6, 6), (7, 8), (8, 8)]


@pytest.mark.parametrize("requested", range(1, 12))
def test_reports_and_evaluations_by_time_follow_their_request(requested):
    kept, log = Kept({requested: ControlFlags(report=True)}), Record()
    trainer(Watched(), log, kept, epochs=3, every=Intervals(log=Interval(seconds=1.0))).run()
    assert [report.step for report in log.reports] == [requested]
    kept, log = Kept({requested: ControlFlags(evaluate=True)}), Record()
    every = Intervals(evaluation=Interval(seconds=1.0))
    trainer(Watched(), log, kept, epochs=3, every=every, evaluator=evaluator()).run()
    kept, both = Kept({requested: ControlFlags(report=True, evaluate=True)}), Record()
    trainer(Watched(), both, kept, epochs=3, every=every, evaluator=evaluator()).run()
    for reports in (log.reports, both.reports):
        assert [report.step for report in reports] == [requested + 1], "the next step has started"
        assert reports[0].steps == requested + 1, "no report of the one step in between"
        assert reports[0].valid_perplexity is not None


def test_checkpoints_after_every_third_step():
    kept = Kept()
    run(Watched(), callbacks=kept, epochs=3, every=Intervals(checkpoint=Interval(steps=3)))
    assert [progress.step for progress, _, _ in kept.commits] == [0, 3, 6, 9, 12]
    (_, expected, _), _ = uninterrupted()
    np.testing.assert_array_equal(kept.commits[-1][1], expected)


@pytest.mark.parametrize("every", EVERY[1:4:2])
@pytest.mark.parametrize("requested", range(2, 11))
def test_reports_of_a_resumed_run_are_those_of_an_uninterrupted_one(every, requested):
    whole, first, second = Record(), Record(), Record()
    trainer(Watched(), whole, epochs=3, every=every, evaluator=evaluator()).run()
    kept = Kept({requested: ControlFlags(stop=True)})
    trainer(Watched(), first, kept, epochs=3, every=every, evaluator=evaluator()).run()
    progress, weights, state = kept.commits[-1]
    assert progress.reported_step == (first.reports[-1].step if first.reports else 0)
    model = Watched()
    model.parameters.flat[:] = weights
    on = LSTMState(*(mx.nd.array(part) for part in state))
    trainer(model, second, progress=progress, state=on, epochs=3, every=every, evaluator=evaluator()).run()
    assert len(whole.reports) == len(first.reports) + len(second.reports)
    for one, other in zip(facts(whole.reports), facts([*first.reports, *second.reports])):
        assert one == pytest.approx(other, rel=1e-12)
    assert whole.valid == [*first.valid, *second.valid]


def test_run_that_is_resumed_with_reports_begins_them_at_its_epoch():
    """As do those whose checkpoint is of a version without reports."""
    kept = Kept({5: ControlFlags(stop=True)})
    trainer(Watched(), callbacks=kept, epochs=3).run()
    progress, _, state = kept.commits[-1]
    assert (progress.position, progress.unreported_steps) == (2, 2)
    for given, covered in ((progress, 4), (progress.reported(), 2)):
        log, on = Record(), LSTMState(*(mx.nd.array(part) for part in state))
        every = Intervals(log=Interval(steps=8))
        trainer(Watched(), log, progress=given, state=on, epochs=3, every=every).run()
        assert [(report.step, report.steps) for report in log.reports] == [(8, covered)]


def test_replay_has_the_reports_of_the_run():
    """Their lines are in the log of the run, so that a run resumed from there must not write them again."""
    every = EVERY[1]
    stopped = Kept({8: ControlFlags(stop=True)})
    trainer(Watched(), callbacks=stopped, epochs=3, every=every, evaluator=evaluator()).run()
    target, _, _ = stopped.commits[-1]
    model, kept = Watched(), Kept()
    trainer(model, callbacks=kept, epochs=3, every=every).replay(Progress(), model.zero_state(B), target.step)
    assert kept.commits[-1][0].reported_step == target.reported_step


def test_times_of_profiled_steps_are_logged_before_the_report_that_covers_them():
    class Ordered(Record):
        def report(self, report):
            super().report(report)
            reported.append((report.step, [row["step"] for _, row in self.parts]))

    reported, log, every = [], Ordered(), Intervals(log=Interval(steps=5))
    run(Watched(), log, epochs=3, time_every=2, every=every)
    assert reported == [(5, [2, 4]), (10, [2, 4, 6, 8, 10])]
    assert [(epoch, row["step"]) for epoch, row in log.parts] == [(1, 2), (1, 4), (2, 6), (2, 8), (3, 10), (3, 12)]


@pytest.mark.parametrize("requested", range(2, 11))
def test_times_of_the_profiled_steps_up_to_a_checkpoint_are_logged_before_it(requested):
    """Because a run that is resumed from there does not repeat them."""

    class Committing(Kept):
        def commit(self, progress, state):
            super().commit(progress, state)
            logged.append([row["step"] for _, row in log.parts])

    logged, log, kept = [], Record(), Committing({requested: ControlFlags(stop=True)})
    run(Watched(), log, kept, epochs=3, time_every=2)
    for (progress, _, _), steps in zip(kept.commits, logged):
        assert steps == list(range(2, progress.step + 1, 2))


def test_epochs_with_a_report_are_shown_and_sampled():
    kept = Kept()
    log = run(Watched(), callbacks=kept, epochs=7, every=Intervals(log=Interval(steps=10)))
    assert [report.epoch for report in log.reports] == [2.5, 5.0]
    assert log.shown == kept.samples == [3, 5, 7], "and the last one"


def test_evaluation_inside_an_epoch_is_reported_to_the_watchdog_and_ends_with_steps():
    kept, ended = Kept(), []
    kept.begin_steps = ended.append
    every = Intervals(evaluation=Interval(steps=2))
    trainer(Watched(), callbacks=kept, epochs=1, every=every, evaluator=evaluator()).run()
    assert {step for phase, step in kept.beats if phase == "validation"} == {2, 4}
    assert ended == [0, 2, 4]
