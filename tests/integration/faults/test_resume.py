"""A run that is killed at any step and resumed ends bit-identical to an uninterrupted run."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.kill_and_resume import EPOCHS, FLAGS, kill_and_resume, train
from tests.support.launchers import ENVIRONMENT, LAUNCHERS, horovodrun, mpirun
from tests.support.outcomes import rows, same_bits, same_trajectory
from tests.support.programs import TINY, TRAIN, faulty, newest

pytestmark = pytest.mark.slow


# tests/soak.py covers the other combinations.
@pytest.mark.parametrize(
    ("name", "size", "sampling"),
    [
        ("alone", 1, "consecutive"),
        ("alone", 1, "random"),
        ("horovodrun-gloo", 2, "consecutive"),
        ("mpirun", 2, "random"),
        ("horovodrun-gloo", 3, "random"),
        ("mpirun", 3, "consecutive"),
    ],
)
def test_resumed_run_is_bit_identical(name: str, size: int, sampling: str, song_file: Path, tmp_path: Path):
    launcher = LAUNCHERS[name](size) if size > 1 else []
    kill_and_resume(launcher, tmp_path, size, f"--corpus={song_file}", f"--sampling={sampling}")


def test_resume_with_schedule_and_validation_set_is_bit_identical(song_file: Path, tmp_path: Path):
    flags = ["--valid-fraction=0.1", "--eval-every=2", "--learning-rate-schedule=cosine", "--warm-up-steps=20"]
    kill_and_resume(mpirun(2), tmp_path, 2, f"--corpus={song_file}", *flags, steps=26)
    paths = [tmp_path / name / "checkpoints" / "best.safetensors" for name in ("whole", "broken")]
    one, other = (load_checkpoint(path, "") for path in paths)
    assert one.facts == other.facts
    for name, value in one.parameters.items():
        np.testing.assert_array_equal(value, other.parameters[name], err_msg=name)
    assert [row["valid_perplexity"] is None for row in rows(tmp_path / "whole")[:EPOCHS]] == [True, False] * 2 + [True]


def test_resume_of_a_deeper_model_with_reports_inside_epochs_is_bit_identical(song_file: Path, tmp_path: Path):
    flags = ["--layers=3", "--valid-fraction=0.1", "--log-every=7steps", "--eval-every=11steps"]
    kill_and_resume(mpirun(2), tmp_path, 2, f"--corpus={song_file}", *flags, steps=26)
    reports = [row for row in rows(tmp_path / "broken") if "steps" in row]
    assert [row["step"] for row in reports] == [k for k in range(1, EPOCHS * 26 + 1) if k % 7 == 0 or k % 11 == 0]
    assert [row["step"] for row in reports if row["valid_perplexity"]] == list(range(11, EPOCHS * 26 + 1, 11))


def test_resume_with_other_numbers_of_workers_follows_the_same_trajectory(song_file: Path, tmp_path: Path):
    # At a larger learning rate this model is chaotic: uninterrupted runs of 1 and 4 workers differ by half after eight
    # epochs.
    flags = (*FLAGS, "--learning-rate=0.1", f"--corpus={song_file}")
    alone, changing = tmp_path / "alone", tmp_path / "changing"
    train([], alone, *flags)
    program = faulty("signal", 0, 50, tmp_path / "first")
    said = train(mpirun(4), changing, *flags, program=program, status=75)
    assert "stopped by SIGUSR1 on rank 0 after step 5" in said
    program = faulty("signal", 1, 50, tmp_path / "second")
    said = train(horovodrun("gloo", 3), changing, "--resume", program=program, status=-1)
    changes = "; workers 4 -> 3, controller mpi -> gloo"
    assert f"{changes}: the trajectory is the same up to floating-point rounding\n" in said
    assert "workers 3 -> 1" in train([], changing, "--resume")
    same_trajectory(alone, changing)


def test_finished_run_resumes_with_more_epochs_but_no_other_change(song_file: Path, tmp_path: Path):
    whole, longer = tmp_path / "whole", tmp_path / "longer"
    flags = (*FLAGS, f"--corpus={song_file}")
    train([], whole, *flags)
    train([], longer, *flags, "--epochs=3")
    before = newest(longer).read_bytes()
    assert "all 3 epochs are done: train longer with more --epochs\n" in train([], longer, "--resume")
    assert newest(longer).read_bytes() == before
    assert json.loads((longer / "status.json").read_text())["step"] == 3 * 29
    for change, words in (
        ("--learning-rate=0.1", "--learning-rate was 0.5 and is 0.1"),
        ("--hidden-size=9", "--hidden-size was 8 and is 9"),
        ("--layers=2", "--layers was 1 and is 2"),
        ("--max-chars=601", "--corpus is another text, or "),
        ("--sampling=random", "--sampling was consecutive and is random"),
        ("--global-batch-size=5", "--global-batch-size was 4 and is 5"),
    ):
        said = train([], longer, "--resume", change, status=78)
        assert said.count("\n") == 1
        assert f"error: --resume: {words}" in said or f", {words}" in said
    settings = (longer / "config.json").read_bytes()
    said = train([], longer, "--resume", "--epochs=2", status=78)
    assert said == "error: --epochs 2: 3 epochs of this run are done: give more, or leave it out\n"
    assert (longer / "config.json").read_bytes() == settings
    train([], longer, "--resume", f"--epochs={EPOCHS}")
    same_bits(whole, longer)


def test_resume_uses_the_newest_intact_checkpoint(song_file: Path, tmp_path: Path):
    run_dir, flags = tmp_path / "run", (*FLAGS, f"--corpus={song_file}", "--checkpoint-every=1epoch")
    whole = tmp_path / "whole"
    train([], whole, *flags)
    train([], run_dir, *flags, "--epochs=4")
    third, second = sorted((run_dir / "checkpoints").iterdir())[::-1][:2]
    third.write_bytes(third.read_bytes()[:-1])
    data = bytearray(second.read_bytes())
    data[len(data) // 2] ^= 1
    second.write_bytes(bytes(data))
    said = train([], run_dir, "--resume", f"--epochs={EPOCHS}")
    assert f"{third.name}: is not an intact .safetensors file" in said
    assert f"set aside as {second.name}.corrupt" in said
    assert f"resumed after step {2 * 29}, in epoch 3\n" in said
    same_bits(whole, run_dir)
    for path in (run_dir / "checkpoints").glob("*.safetensors"):
        path.write_bytes(b"\x80\x04\x95pickle")
    rows_before = (run_dir / "metrics.jsonl").read_bytes()
    said = train([], run_dir, "--resume", "--epochs=9", status=65)
    assert "no intact checkpoint is left" in said
    assert said.count("\n") == 1
    assert (run_dir / "metrics.jsonl").read_bytes() == rows_before
    said = train([], tmp_path / "absent", "--resume", status=66)
    assert "absent: has no run to resume\n" in said
    assert not (tmp_path / "absent").exists()


def test_run_directory_in_use_is_refused(song_file: Path, tmp_path: Path):
    run_dir = tmp_path / "run"
    import subprocess

    from tests.support.programs import environment

    argv = [*TRAIN, *TINY, "--epochs=100000", f"--corpus={song_file}", f"--run-dir={run_dir}"]
    argv[0] = os.sys.executable
    job = subprocess.Popen(argv, env=environment(ENVIRONMENT), stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 30
        while not (run_dir / "metrics.jsonl").exists() and time.monotonic() < deadline:
            time.sleep(0.1)
        for flags in (("--resume",), (*TINY, "--overwrite", f"--corpus={song_file}")):
            said = train([], run_dir, *flags, status=73)
            assert f"another job is writing there (process {job.pid} on " in said
    finally:
        job.send_signal(signal.SIGTERM)
        assert job.wait(timeout=20) == 75
