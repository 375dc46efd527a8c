"""A full disk and ranks with different settings are reported in one error line, before anything is lost."""

import contextlib
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Iterator

import pytest

from tests.support.launchers import ENVIRONMENT, LAUNCHERS, mpirun, under
from tests.support.programs import ROOT, TINY, TRAIN, newest, run

pytestmark = pytest.mark.slow


def limited(kilobytes: int, argv: list) -> list:
    """Return the command with a limit on the size of its files, which imitates a full disk."""
    return ["bash", "-c", f'ulimit -f {kilobytes}; exec "$@"', "bash", *argv]


@under("horovodrun-gloo", "mpirun")
def test_unwritable_first_checkpoint_is_reported_once(launcher, song_file, tmp_path):
    argv = [*launcher(2), *limited(20, ["python", *TRAIN[1:]]), *TINY, f"--corpus={song_file}", "--run-dir=run"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode in (1, 74)
    output = done.stdout + done.stderr
    assert len(re.findall(r"error: .*step-000000000.safetensors: cannot be written, 0.0 MB are needed", output)) == 1
    assert "File too large" in output
    assert "Traceback" not in done.stdout
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert json.loads((tmp_path / "run" / "errors" / "rank0.json").read_text())["status"] == 74


@contextlib.contextmanager
def small_disk(folder: Path, size: str) -> Iterator[None]:
    """Mount a file system of this size, in the notation of mount, at a new folder."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk can only be mounted by root")
    try:
        yield
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_full_disk_keeps_all_committed_checkpoints(song_file, tmp_path):
    small = tmp_path / "small"
    with small_disk(small, "160k"):
        argv = [*mpirun(2), *TRAIN, *TINY, "--epochs=40", "--checkpoint-every=1epoch", f"--corpus={song_file}"]
        done = run([*argv, f"--run-dir={small / 'run'}"], cwd=tmp_path, env=ENVIRONMENT)
        assert done.returncode == 74, done.stdout + done.stderr
        assert "No space left on device" in done.stderr
        kept = newest(small / "run")
        assert not list((small / "run" / "checkpoints").glob("*.partial"))
        subprocess.run(["mount", "-o", "remount,size=4m", str(small)], check=True)
        again = run([*mpirun(2), *TRAIN, "--resume", f"--run-dir={small / 'run'}"], cwd=tmp_path, env=ENVIRONMENT)
        assert again.returncode == 0, again.stderr
        assert f"resumed after step {int(kept.stem.split('-')[1])}, " in again.stdout


def test_job_over_mpi_needs_no_space_for_temporary_files(song_file, tmp_path):
    small = tmp_path / "small"
    with small_disk(small, "64k"):
        with contextlib.suppress(OSError), (small / "full").open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        job = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--mpi", *TINY, "--stall-timeout=20"]
        argv = [*job, f"--run-dir={tmp_path}/run", f"--corpus={song_file}"]
        done = run(argv, env={**ENVIRONMENT, "TMPDIR": str(small)}, timeout=100)
    assert (done.returncode, done.stderr) == (0, "")


def differently(flags: str) -> list:
    """Return the command of jobs/train.py with additional flags on rank 1 only."""
    script = f'if [ "${{HOROVOD_RANK:-$OMPI_COMM_WORLD_RANK}}" = 1 ]; then set -- "$@" {flags}; fi; exec "$@"'
    return ["bash", "-c", script, "bash", *TRAIN]


@pytest.mark.parametrize(
    ("name", "flags", "words"),
    [
        ("horovodrun-gloo", "--learning-rate=0.2", r"learning_rate 0\.2, {0} has 0\.1"),
        (
            "horovodrun-mpi",
            "--max-chars=599",
            r"corpus \w{12}\.\.\., {0} has \w{12}\.\.\.; {1} has max_chars 599, {0} has 600",
        ),
        ("mpirun", "--resume", r"resume True, {0} has False"),
        ("mpirun", "--seed=1 --epochs=3", r"epochs 3, {0} has 2; {1} has seed 1, {0} has 0"),
    ],
)
def test_ranks_with_different_settings_are_reported_before_training(name, flags, words, song_file, tmp_path):
    argv = [*LAUNCHERS[name](2), *differently(flags), *TINY, f"--corpus={song_file}", "--run-dir=run"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode in (1, 78)
    output = done.stdout + done.stderr
    first, other = r"rank 0 \(\S+\)", r"rank 1 \(\S+\)"
    expected = words.replace("{0}", first).replace("{1}", other)
    assert len(re.findall(rf"error: start: ranks differ: {other} has {expected}: ", output)) == 1, output
    assert "Traceback" not in done.stdout
    assert not (tmp_path / "run").exists()


def test_different_number_of_threads_is_reported(song_file, tmp_path):
    """Other numbers of threads sum in another order, so the weights of the ranks would diverge."""
    script = 'if [ "$OMPI_COMM_WORLD_RANK" = 1 ]; then export OMP_NUM_THREADS=2; fi; exec "$@"'
    argv = [*mpirun(2), "bash", "-c", script, "bash", *TRAIN, *TINY, f"--corpus={song_file}", "--run-dir=run"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 78
    assert re.search(
        r"error: start: ranks differ: rank 1 \(\S+\) has OMP_NUM_THREADS 2, rank 0 \(\S+\) has 1: ", done.stderr
    )


def test_different_code_is_reported(song_file, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import os, runpy\nif os.environ.get('OMPI_COMM_WORLD_RANK') == '1':\n"
        "    import lstm_dist.cluster.provenance\n    lstm_dist.cluster.provenance.code_digest = lambda _: 'another'\n"
        f"runpy.run_path({TRAIN[1]!r}, run_name='__main__')\n"
    )
    argv = [*mpirun(2), "python", str(program), *TINY, f"--corpus={song_file}", "--run-dir=run"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 78
    assert re.search(
        r"error: start: ranks differ: rank 1 \(\S+\) has code another, rank 0 \(\S+\) has \w{12}\.\.\.: ", done.stderr
    )
