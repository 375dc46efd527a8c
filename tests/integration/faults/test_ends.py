"""One rank's failure is everybody's: quickly, with that rank's message, a non-zero exit and nothing left running."""

import json
import os
import re
import time

import numpy as np
import pytest

from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.status import first_failure
from tests.support.launchers import ENVIRONMENT, EVERY_LAUNCHER, LAUNCHERS, mpirun, under
from tests.support.outcomes import under_way
from tests.support.programs import ROOT, TINY, TRAIN, faulty, newest, run

pytestmark = pytest.mark.slow

LONG = ("--epochs=100000", "--log-every=1000000", "--run-dir=run")


def job(launcher, fault, song_file, tmp_path, *flags, ranks=2):
    """Run until the fault, (kind, rank), has ended it; its end and the seconds from the fault to there."""
    file = tmp_path / "fault"
    argv = [*launcher(ranks), *faulty(*fault, 40, file), *TINY, *LONG, f"--corpus={song_file}", *flags]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    return done, time.time() - float(file.read_text())


@EVERY_LAUNCHER
@pytest.mark.parametrize(("kind", "rank"), [("raise", 1), ("kill", 0), ("kill", 1), ("leave", 1)])
def test_a_rank_that_fails_ends_the_job(launcher, kind, rank, song_file, tmp_path):
    done, seconds = job(launcher, (kind, rank), song_file, tmp_path, "--checkpoint-every=1epoch")
    assert done.returncode != 0
    assert seconds < 6
    cause = first_failure(tmp_path / "run")
    if kind == "raise":
        assert f"rank {rank} on " in done.stderr + done.stdout
        assert "RuntimeError: the cat sat on the keyboard" in done.stderr + done.stdout
        assert (cause.rank, cause.status, cause.message) == (rank, 70, "the cat sat on the keyboard")
        assert cause.step >= 38
    else:
        assert cause is None or cause.status == 76
    assert newest(tmp_path / "run").name == "step-000000029.safetensors"


def test_a_crash_says_where_python_was(song_file, tmp_path):
    done, seconds = job(mpirun, ("segfault", 1), song_file, tmp_path)
    assert done.returncode == 128 + 11  # and not MXNet's handler's 255, which may wait for ever before it
    assert seconds < 6
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "faulty_train.py" in done.stderr


STALL = 3.0


@EVERY_LAUNCHER
@pytest.mark.parametrize("kind", ["hang", "freeze", "lock"])
def test_a_rank_that_does_not_move_ends_the_job(launcher, kind, song_file, tmp_path):
    done, seconds = job(launcher, (kind, 1), song_file, tmp_path, f"--stall-timeout={STALL:g}")
    assert done.returncode != 0
    # horovodrun gives a frozen process five seconds, twice
    patience = 12 if kind == "freeze" else 4
    assert STALL - 0.5 < seconds < STALL + patience
    errors = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "run" / "errors").iterdir()}
    assert "most recent call first" in done.stdout + done.stderr
    assert kind == "lock" or errors["rank0"]["status"] == 76
    if kind == "hang" or "rank1" in errors:  # what was frozen or held may still say so when it is killed
        assert first_failure(tmp_path / "run").rank == 1
        assert errors["rank1"]["status"] == 70
        where = "is stuck in its own code" if kind == "hang" else "was suspended"
        assert re.match(rf"no step for \d+ s \(--stall-timeout 3\): it {where}", errors["rank1"]["message"])


def test_without_the_watchdog_a_rank_that_hangs_would_never_end_the_job(song_file, tmp_path):
    """The control: what the test above sees is the watchdog's work and not Horovod's."""
    argv = [*mpirun(2), *faulty("hang", 1, 40, tmp_path / "fault"), *TINY, *LONG, f"--corpus={song_file}"]
    with pytest.raises(TimeoutError):
        run(argv, cwd=tmp_path, env=ENVIRONMENT, timeout=STALL + 8)


def test_a_slow_rank_is_not_a_stuck_one(song_file, tmp_path):
    argv = [*mpirun(2), *faulty("slow", 1, 40, tmp_path / "fault"), *TINY, "--run-dir=run", f"--corpus={song_file}"]
    done = run([*argv, f"--stall-timeout={STALL:g}"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_a_slow_start_is_not_a_stuck_one(song_file, tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import time\nfrom lstm_dist.cluster import provenance\nfrom lstm_dist.data import token_dataset\n"
        "load, describe = token_dataset.load_corpus, provenance.describe_rank\n"
        "token_dataset.load_corpus = lambda *arguments: (time.sleep(3), load(*arguments))[1]\n"
        "provenance.describe_rank = lambda *rank: (time.sleep(0.5), describe(*rank))[1]\n"
    )
    path = os.pathsep.join([str(tmp_path), str(ROOT)])
    argv = [*TRAIN, *TINY, "--run-dir=run", f"--corpus={song_file}", "--stall-timeout=1"]
    done = run(argv, cwd=tmp_path, env={**ENVIRONMENT, "PYTHONPATH": path})
    assert (done.returncode, done.stderr) == (0, ""), "sitecustomize.py has to work, too"


@under("horovodrun-gloo", "mpirun")
def test_a_byte_that_is_not_utf_8_hangs_nothing(launcher, song_file, tmp_path):
    argv = [*launcher(2), *faulty("noise", 1, 10, tmp_path / "fault"), *TINY, "--run-dir=run", f"--corpus={song_file}"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished", done.stderr


@under("horovodrun-gloo", "mpirun")
def test_weights_that_drift_apart_are_never_saved(launcher, song_file, tmp_path):
    done, _ = job(launcher, ("drift", 1), song_file, tmp_path, "--checkpoint-every=1epoch")
    assert done.returncode != 0
    differ = r"step 58: ranks differ: rank 1 \(\S+\) has weights \w{12}\.\.\., rank 0 \(\S+\) has \w{12}\.\.\.: "
    assert re.search(differ, done.stdout + done.stderr)
    assert first_failure(tmp_path / "run").status == 70
    assert newest(tmp_path / "run").name == "step-000000029.safetensors"


@EVERY_LAUNCHER
def test_ctrl_c_ends_cleanly(launcher, song_file, tmp_path):
    program = [*launcher(2), *TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode != 0
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "stopped"
    assert newest(tmp_path / "run").name == f"step-{status['step']:09d}.safetensors"


def test_ctrl_c_alone_stops_with_a_checkpoint(song_file, tmp_path):
    program = [*TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode == 75
    assert done.stderr == ""
    assert re.search(
        r"\nstopped by SIGINT on rank 0 after step \d+; continue with --resume --run-dir run\n$", done.stdout
    )
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_a_reader_that_leaves_ends_the_run_without_a_word(song_file, tmp_path):
    program = " ".join(["python", *TRAIN[1:], *TINY, *LONG, "--log-every=1", f"--corpus={song_file}"])
    done = run(["bash", "-c", f"{program} | head -n 3; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 3
    assert done.returncode == 141


@EVERY_LAUNCHER
def test_a_mistake_is_one_line_on_one_rank_and_a_status_on_all(launcher, tmp_path):
    done = run([*launcher(2), *TRAIN, "--corpus=absent.txt"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode != 0
    message = "error: --corpus absent.txt: no such file"
    assert len(re.findall(re.escape(message), done.stdout + done.stderr)) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("launcher", "rank"), [(LAUNCHERS["horovodrun-gloo"], 1), (mpirun, 0)])
def test_numbers_that_are_not_finite_stop_every_rank(launcher, rank, song_file, tmp_path):
    done, _ = job(launcher, ("nan", rank), song_file, tmp_path, "--checkpoint-every=1epoch")
    assert done.returncode in (1, 79)
    assert "step 40: training has diverged (loss " in done.stdout + done.stderr
    assert newest(tmp_path / "run").name == "step-000000039.safetensors", "the weights of the step before"
    good = run([*TRAIN, *TINY, "--epochs=4", f"--corpus={song_file}", "--run-dir=good"], cwd=tmp_path, env=ENVIRONMENT)
    assert good.returncode == 0
    again = run([*launcher(2), *TRAIN, "--resume", "--run-dir=run", "--epochs=4"], cwd=tmp_path, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    ours, theirs = (load_checkpoint(newest(tmp_path / name), "").parameters for name in ("run", "good"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=1e-5)


def test_processes_that_each_believe_to_be_alone_are_told(song_file, tmp_path):
    # What a launcher of another MPI leaves behind: its variables are there, its connection is not.
    lonely = {"PMI_RANK": "0", "PMI_SIZE": "4", "HOROVOD_CONTROLLER": "gloo"}
    done = run([*TRAIN, *TINY, f"--corpus={song_file}"], cwd=tmp_path, env={**ENVIRONMENT, **lonely})
    assert done.returncode == 78
    assert done.stderr.startswith("error: mpiexec started 4 processes, but each finds a world of 1")
    assert done.stderr.count("\n") == 1
