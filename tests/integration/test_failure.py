"""One rank's failure is everybody's: quickly, with that rank's message, a non-zero exit and nothing left running."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.integration.launchers import ENVIRONMENT, EVERY_LAUNCHER
from tests.integration.programs import TINY, TRAIN, run

FAULTY = ("python", str(Path(__file__).with_name("faulty_train.py")))
LONG = ("--epochs=100000", "--log-every=1000000", "--run-dir=run")


@pytest.mark.slow
@EVERY_LAUNCHER
@pytest.mark.parametrize(("kind", "rank"), [("raise", 0), ("raise", 1), ("kill", 0), ("leave", 1)])
def test_a_rank_that_fails_ends_the_job(launcher, kind, rank, song_file, tmp_path):
    fault = tmp_path / "fault"
    program = [*FAULTY, f"{kind}:{rank}:40:{fault}", *TINY, *LONG, f"--corpus={song_file}"]
    done = run([*launcher(2), *program], cwd=tmp_path, env=ENVIRONMENT)
    seconds = time.time() - float(fault.read_text())
    assert done.returncode != 0
    assert seconds < 10
    if kind == "raise":
        assert f"rank {rank} on " in done.stderr + done.stdout
        assert "RuntimeError: the cat sat on the keyboard" in done.stderr + done.stdout


def under_way(run_dir):
    """Whether a run has written two epochs."""
    metrics = run_dir / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") > 1


@pytest.mark.slow
@EVERY_LAUNCHER
def test_ctrl_c_ends_cleanly(launcher, song_file, tmp_path):
    program = [*launcher(2), *TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode != 0
    assert under_way(tmp_path / "run")


@pytest.mark.slow
def test_ctrl_c_alone_is_one_line(song_file, tmp_path):
    program = [*TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    done = run(program, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=lambda: under_way(tmp_path / "run"))
    assert done.returncode == 130
    assert done.stderr == "error: interrupted\n"
    for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines():
        json.loads(line)


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_run_without_a_word(song_file, tmp_path):
    program = " ".join(["python", *TRAIN[1:], *TINY, *LONG, "--log-every=1", f"--corpus={song_file}"])
    done = run(["bash", "-c", f"{program} | head -n 3; exit ${{PIPESTATUS[0]}}"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.stderr == ""
    assert done.stdout.count("\n") == 3
    assert done.returncode == 141


@pytest.mark.slow
@EVERY_LAUNCHER
def test_a_mistake_is_one_line_on_one_rank_and_a_status_on_all(launcher, tmp_path):
    done = run([*launcher(2), *TRAIN, "--corpus=absent.txt"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode != 0
    message = "error: --corpus absent.txt: no such file"
    assert len(re.findall(re.escape(message), done.stdout + done.stderr)) == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@EVERY_LAUNCHER
def test_numbers_that_are_not_finite_stop_every_rank(launcher, song_file, tmp_path):
    program = [*FAULTY, f"nan:1:40:{tmp_path / 'fault'}", *TINY, *LONG, f"--corpus={song_file}"]
    done = run([*launcher(2), *program], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode != 0
    assert "training has diverged" in done.stdout + done.stderr
    assert not (tmp_path / "run" / "checkpoints" / "final.safetensors").exists()


@pytest.mark.slow
def test_processes_that_each_believe_to_be_alone_are_told(song_file, tmp_path):
    # What a launcher of another MPI leaves behind: its variables are there, its connection is not.
    lonely = {"PMI_RANK": "0", "PMI_SIZE": "4", "HOROVOD_CONTROLLER": "gloo"}
    done = run([*TRAIN, *TINY, f"--corpus={song_file}"], cwd=tmp_path, env={**ENVIRONMENT, **lonely})
    assert done.returncode == 2
    assert done.stderr.startswith("error: mpiexec started 4 processes but each of them finds a world of 1")
    assert done.stderr.count("\n") == 1
