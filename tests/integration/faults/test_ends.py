"""A failure of one rank ends the job quickly, with that rank's message, a non-zero status and no process left."""

import json
import re
import sys
import time

import numpy as np
import pytest

from lstm_dist.run.checkpoint import load_checkpoint
from lstm_dist.run.status import first_failure
from tests.support.launchers import ENVIRONMENT, EVERY_LAUNCHER, LAUNCHERS, mpirun, under
from tests.support.layered import LayeredEnvironment
from tests.support.outcomes import under_way
from tests.support.programs import TINY, TRAIN, faulty, newest, run

pytestmark = pytest.mark.slow

LONG = ("--epochs=100000", "--log-every=1000000", "--run-dir=run")


def job(launcher, fault, song_file, tmp_path, *flags, ranks=2):
    """Run a job that a fault, (kind, rank), ends; return its result and the seconds from the fault to the end."""
    file = tmp_path / "fault"
    argv = [*launcher(ranks), *faulty(*fault, 40, file), *TINY, *LONG, f"--corpus={song_file}", *flags]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    return done, time.time() - float(file.read_text())


@EVERY_LAUNCHER
@pytest.mark.parametrize(("kind", "rank"), [("raise", 1), ("kill", 0), ("kill", 1), ("leave", 1)])
def test_failed_rank_ends_the_job(launcher, kind, rank, song_file, tmp_path):
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


def test_segmentation_fault_prints_the_python_traceback(song_file, tmp_path):
    done, seconds = job(mpirun, ("segfault", 1), song_file, tmp_path)
    assert done.returncode == 128 + 11  # not 255 from MXNet's handler, which may block forever before it exits
    assert seconds < 6
    assert "Fatal Python error: Segmentation fault" in done.stderr
    assert "faulty_train.py" in done.stderr


STALL = 3.0


@EVERY_LAUNCHER
@pytest.mark.parametrize("kind", ["hang", "freeze", "lock"])
def test_stalled_rank_ends_the_job(launcher, kind, song_file, tmp_path):
    done, seconds = job(launcher, (kind, 1), song_file, tmp_path, f"--stall-timeout={STALL:g}")
    assert done.returncode != 0
    # horovodrun waits five seconds for a frozen process, twice.
    patience = 12 if kind == "freeze" else 4
    assert STALL - 0.5 < seconds < STALL + patience
    errors = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "run" / "errors").iterdir()}
    assert "most recent call first" in done.stdout + done.stderr
    assert kind == "lock" or errors["rank0"]["status"] == 76
    if kind == "hang" or "rank1" in errors:  # a frozen or blocked rank may still report this when it is killed
        assert first_failure(tmp_path / "run").rank == 1
        assert errors["rank1"]["status"] == 70
        where = "is stuck in its own code" if kind == "hang" else "was suspended"
        assert re.match(rf"no step for \d+ s \(--stall-timeout 3\): it {where}", errors["rank1"]["message"])


def test_without_the_watchdog_a_hung_rank_does_not_end_the_job(song_file, tmp_path):
    """Control: the test above detects the work of the watchdog, not of Horovod."""
    argv = [*mpirun(2), *faulty("hang", 1, 40, tmp_path / "fault"), *TINY, *LONG, f"--corpus={song_file}"]
    with pytest.raises(TimeoutError):
        run(argv, cwd=tmp_path, env=ENVIRONMENT, timeout=STALL + 8)


def test_slow_rank_is_not_reported_as_stalled(song_file, tmp_path):
    argv = [*mpirun(2), *faulty("slow", 1, 40, tmp_path / "fault"), *TINY, "--run-dir=run", f"--corpus={song_file}"]
    done = run([*argv, f"--stall-timeout={STALL:g}"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr


def test_slow_start_is_not_reported_as_stalled(song_file, tmp_path):
    environment = LayeredEnvironment(tmp_path / "venv")
    environment.at_start(
        "import time\nfrom lstm_dist.cluster import provenance\nfrom lstm_dist.data import token_dataset\n"
        "load, describe = token_dataset.load_corpus, provenance.describe_rank\n"
        "token_dataset.load_corpus = lambda *arguments: (time.sleep(3), load(*arguments))[1]\n"
        "provenance.describe_rank = lambda *rank: (time.sleep(0.5), describe(*rank))[1]\n"
    )
    program = [str(environment.python), *TRAIN[1:]]
    argv = [*program, *TINY, "--run-dir=run", f"--corpus={song_file}", "--stall-timeout=1"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, ""), "failing code at the start prints to stderr, too"


@under("horovodrun-gloo", "mpirun")
def test_output_that_is_not_utf_8_does_not_block_the_run(launcher, song_file, tmp_path):
    argv = [*launcher(2), *faulty("noise", 1, 10, tmp_path / "fault"), *TINY, "--run-dir=run", f"--corpus={song_file}"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert json.loads((tmp_path / "run" / "status.json").read_text())["state"] == "finished", done.stderr


@under("horovodrun-gloo", "mpirun")
def test_diverging_weights_of_ranks_are_never_saved(launcher, song_file, tmp_path):
    done, _ = job(launcher, ("drift", 1), song_file, tmp_path, "--checkpoint-every=1epoch")
    assert done.returncode != 0
    differ = r"step 58: ranks differ: rank 1 \(\S+\) has weights \w{12}\.\.\., rank 0 \(\S+\) has \w{12}\.\.\.: "
    assert re.search(differ, done.stdout + done.stderr)
    assert first_failure(tmp_path / "run").status == 70
    assert newest(tmp_path / "run").name == "step-000000029.safetensors"


@EVERY_LAUNCHER
def test_ctrl_c_under_a_launcher_stops_with_a_checkpoint(launcher, song_file, tmp_path):
    program = [*launcher(2), *TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode != 0
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert status["state"] == "stopped"
    assert newest(tmp_path / "run").name == f"step-{status['step']:09d}.safetensors"


def test_ctrl_c_without_a_launcher_stops_with_a_checkpoint(song_file, tmp_path):
    program = [*TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode == 75
    assert done.stderr == ""
    assert re.search(
        rf"\nstopped by SIGINT on rank 0 after step \d+; continue with {sys.executable} {TRAIN[1]} --resume "
        r"--run-dir run\n$",
        done.stdout,
    )
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


def test_closed_stdout_ends_the_run_silently(song_file, tmp_path):
    program = " ".join(["python", *TRAIN[1:], *TINY, *LONG, "--log-every=1", f"--corpus={song_file}"])
    done = run(["bash", "-c", f"{program} | head -n 3; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 3
    assert done.returncode == 141


@EVERY_LAUNCHER
def test_invalid_flag_is_reported_by_one_rank_and_fails_the_job(launcher, tmp_path):
    done = run([*launcher(2), *TRAIN, "--corpus=absent.txt"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode != 0
    message = "error: --corpus absent.txt: no such file"
    assert len(re.findall(re.escape(message), done.stdout + done.stderr)) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("launcher", "rank"), [(LAUNCHERS["horovodrun-gloo"], 1), (mpirun, 0)])
def test_non_finite_loss_stops_every_rank(launcher, rank, song_file, tmp_path):
    done, _ = job(launcher, ("nan", rank), song_file, tmp_path, "--checkpoint-every=1epoch")
    assert done.returncode in (1, 79)
    assert "step 40: training has diverged (loss " in done.stdout + done.stderr
    assert (
        newest(tmp_path / "run").name == "step-000000039.safetensors"
    ), "the checkpoint has the weights before the diverged step"
    good = run([*TRAIN, *TINY, "--epochs=4", f"--corpus={song_file}", "--run-dir=good"], cwd=tmp_path, env=ENVIRONMENT)
    assert good.returncode == 0
    again = run([*launcher(2), *TRAIN, "--resume", "--run-dir=run", "--epochs=4"], cwd=tmp_path, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    ours, theirs = (load_checkpoint(newest(tmp_path / name), "").parameters for name in ("run", "good"))
    for name, value in ours.items():
        np.testing.assert_allclose(value, theirs[name], rtol=1e-3, atol=1e-5)


def test_unconnected_processes_are_reported(song_file, tmp_path):
    # The environment under the launcher of another MPI: its variables are set, but the processes are not connected.
    lonely = {"PMI_RANK": "0", "PMI_SIZE": "4", "PMI_FD": "0", "HOROVOD_CONTROLLER": "gloo"}
    done = run([*TRAIN, *TINY, f"--corpus={song_file}"], cwd=tmp_path, env={**ENVIRONMENT, **lonely})
    assert done.returncode == 78
    assert done.stderr.startswith("error: mpiexec started 4 processes, but each finds a world of 1")
    assert done.stderr.count("\n") == 1
