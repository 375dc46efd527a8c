"""Batches of the D2L chapter's 0..29 example, and the shards of every world size against the global batch."""

import numpy as np
import pytest

from lstm_dist.data import batching
from lstm_dist.data.batching import ConsecutiveBatches, RandomBatches, shard
from lstm_dist.data.token_file import TOKENS, TokenFile, npy_header, read_sequences
from lstm_dist.errors import UserError

THIRTY = np.arange(30, dtype=np.int32)


def test_consecutive_windows_are_those_of_the_chapter():
    windows = list(ConsecutiveBatches(THIRTY, streams=2, seq_len=3).epoch(1))
    starts = [(0, 15), (3, 18), (6, 21), (9, 24)]
    assert len(windows) == len(starts)
    for window, (first, second) in zip(windows, starts):
        expected = np.array([[first, first + 1, first + 2], [second, second + 1, second + 2]])
        np.testing.assert_array_equal(window.inputs, expected)
        np.testing.assert_array_equal(window.targets, expected + 1)


def test_random_windows_are_those_of_the_chapter_shuffled():
    # The chapter's printed example: 9 examples of 3 characters, 8 of them in 4 batches of 2.
    windows = list(RandomBatches(THIRTY, streams=2, seq_len=3).epoch(1))
    assert [w.inputs.shape for w in windows] == [(2, 3)] * 4
    rows = np.concatenate([w.inputs for w in windows])
    np.testing.assert_array_equal(np.concatenate([w.targets for w in windows]), rows + 1)
    assert len(set(rows[:, 0])) == 8
    assert set(rows[:, 0]) <= set(range(0, 27, 3))
    assert list(rows[:, 0]) != sorted(rows[:, 0])


def test_random_order_depends_on_epoch_and_seed_only():
    def order(epoch: int, seed: int) -> list:
        batches = RandomBatches(np.arange(400), streams=4, seq_len=5, seed=seed)
        return [w.inputs[:, 0].tolist() for w in batches.epoch(epoch)]

    assert order(3, 7) == order(3, 7)
    assert order(3, 7) != order(4, 7)
    assert order(3, 7) != order(3, 8)


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
@pytest.mark.parametrize("streams", [1, 5, 8])
@pytest.mark.parametrize("extra", range(7))
def test_shards_of_any_world_size_form_the_global_batch(kind, streams, extra):
    tokens = np.arange(streams * 17 + extra, dtype=np.int32)
    whole = kind(tokens, streams, 3)
    for size in range(1, streams + 1):
        parts = [kind(tokens, streams, 3, rank, size) for rank in range(size)]
        assert {part.steps_per_epoch for part in parts} == {whole.steps_per_epoch}
        for window, *shards in zip(whole.epoch(2), *(part.epoch(2) for part in parts)):
            np.testing.assert_array_equal(np.concatenate([s.inputs for s in shards]), window.inputs)
            np.testing.assert_array_equal(np.concatenate([s.targets for s in shards]), window.targets)
            sizes = [len(s.inputs) for s in shards]
            assert min(sizes) >= 1
            assert max(sizes) - min(sizes) <= 1


def test_consecutive_windows_continue_each_stream():
    tokens = np.arange(5 * 23)
    windows = list(ConsecutiveBatches(tokens, streams=5, seq_len=4).epoch(1))
    for before, after in zip(windows, windows[1:]):
        np.testing.assert_array_equal(before.inputs[:, -1] + 1, after.inputs[:, 0])


@pytest.mark.parametrize(
    ("kind", "needed"), [(ConsecutiveBatches, 32 * 36), (RandomBatches, 32 * 35 + 1)], ids=["consecutive", "random"]
)
def test_shortest_text_gives_one_step_and_a_shorter_one_is_refused(kind, needed):
    assert kind(np.zeros(needed, np.int32), 32, 35).steps_per_epoch == 1
    with pytest.raises(
        UserError, match=rf"--corpus: too short, 32 streams of 35 .* need {needed:,} and it has {needed - 1:,}: "
    ):
        kind(np.zeros(needed - 1, np.int32), 32, 35)


def test_more_workers_than_streams_are_refused():
    assert [shard(3, r, 3) for r in range(3)] == [slice(0, 1), slice(1, 2), slice(2, 3)]
    with pytest.raises(UserError, match="--global-batch-size 3: fewer streams than the 4 workers"):
        shard(3, 0, 4)


@pytest.mark.parametrize("kind", [ConsecutiveBatches, RandomBatches])
def test_every_worker_knows_the_characters_of_the_whole_batch(kind):
    tokens = np.random.default_rng(1).integers(0, 50, 400).astype(np.uint8)
    whole = kind(tokens, 5, 3)
    parts = [kind(tokens, 5, 3, rank, 2, vocab_size=50) for rank in range(2)]
    for start in (0, whole.steps_per_epoch - 2):
        windows = list(zip(whole.epoch(1, start), *(part.epoch(1, start) for part in parts)))
        assert len(windows) == whole.steps_per_epoch - start
        for batch, *shares in windows:
            assert batch.characters is None
            assert np.concatenate([share.inputs for share in shares]).tolist() == batch.inputs.tolist()
            assert np.concatenate([share.targets for share in shares]).tolist() == batch.targets.tolist()
            for share in shares:
                assert share.characters.tolist() == sorted(set(batch.inputs.ravel().tolist()))


@pytest.fixture
def file_of_fifty_windows(tmp_path):
    """Return tokens in a file, and the same in memory: 2 streams of 50 windows of 3 characters."""
    tokens = np.random.default_rng(2).integers(0, 9, 2 * (50 * 3 + 1)).astype(np.uint8)
    (tmp_path / TOKENS).write_bytes(npy_header(tokens.dtype, len(tokens)) + tokens.tobytes())
    return TokenFile.open(tmp_path, 9, len(tokens)), tokens


@pytest.mark.parametrize("start", [0, 1, 15, 16, 17, 40, 49, 50])
def test_windows_that_are_read_together_are_those_of_memory_from_any_start(file_of_fifty_windows, start):
    tokens, in_memory = file_of_fifty_windows
    ahead = [list(map(np.ndarray.tolist, w[:2])) for w in ConsecutiveBatches(tokens, 2, 3).epoch(1, start)]
    assert ahead == [[w[0].tolist(), w[1].tolist()] for w in ConsecutiveBatches(in_memory, 2, 3).epoch(1)][start:]


def test_few_windows_of_a_file_are_read_together_if_they_are_long(file_of_fifty_windows, monkeypatch):
    tokens, _ = file_of_fifty_windows
    lengths = []
    monkeypatch.setattr(batching, "read_sequences", lambda *args: lengths.append(args[2]) or read_sequences(*args))
    for most, expected in ((2**20, [49, 49, 49, 7]), (40, [19] * 8 + [7]), (5, [4] * 50)):
        monkeypatch.setattr(batching, "_MOST_TOKENS", most)
        lengths.clear()
        assert len(list(ConsecutiveBatches(tokens, 2, 3).epoch(1))) == 50
        assert lengths == expected
