"""A stop request from any source, on any rank, stops all ranks after the same step with a checkpoint to resume from."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import List, Optional, Sequence

import pytest

from lstm_dist.cluster.startup import CONFIGURING, PHASES, phases_on_host
from tests.support.launchers import ENVIRONMENT, LAUNCHERS, horovodrun, mpirun
from tests.support.network import wait_until
from tests.support.outcomes import same_bits, under_way
from tests.support.programs import ROOT, TINY, TRAIN, environment, faulty, newest, run

pytestmark = pytest.mark.slow

LONG = ("--epochs=100000", "--log-every=1000000", "--checkpoint-every=1h", "--run-dir=run")


def stopped_step(run_dir: Path, reason: str) -> int:
    """Return the step of a stopped run; check that status, checkpoint and log agree and that it committed once."""
    status = json.loads((run_dir / "status.json").read_text())
    assert (status["state"], status["reason"]) == ("stopped", reason)
    assert newest(run_dir).name == f"step-{status['step']:09d}.safetensors"
    log = (run_dir / "log.txt").read_text(encoding="utf-8")
    assert re.search(
        rf"\nstopped by {reason} on rank \d after step {status['step']}; continue with (\S.* )?--resume", log
    )
    assert log.count("\ncommitted ") == 2  # before the first step, and at the stop
    assert not list((run_dir / "errors").iterdir())
    return int(status["step"])


@pytest.mark.parametrize(
    ("launcher", "rank"),
    [(LAUNCHERS["horovodrun-gloo"], 0), (LAUNCHERS["horovodrun-mpi"], 1), (mpirun, 0), (mpirun, 1)],
)
def test_burst_of_signals_on_one_rank_makes_one_checkpoint(launcher, rank, song_file, tmp_path):
    argv = [*launcher(2), *faulty("signals", rank, 40, tmp_path / "fault"), *TINY, *LONG, f"--corpus={song_file}"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == (1 if "--gloo" in argv else 75), done.stderr
    # Requested during step 40 and voted on with step 41; the result is known once step 41 is complete, during step 42.
    assert stopped_step(tmp_path / "run", "SIGUSR1") == 42
    again = run([*launcher(2), *TRAIN, "--resume", "--run-dir=run", "--epochs=2"], cwd=tmp_path, env=ENVIRONMENT)
    assert again.returncode == 0, again.stderr
    assert newest(tmp_path / "run").name == "step-000000058.safetensors"


def ask(argv: Sequence[str], tmp_path: Path, number: int) -> "subprocess.CompletedProcess[str]":
    """Start a launcher, send it a signal once the run has some epochs, and wait for all processes that it started."""
    kill = lambda pid: os.kill(pid, number)  # noqa: E731
    when = lambda: under_way(tmp_path / "run")  # noqa: E731
    return run(argv, cwd=tmp_path, env=ENVIRONMENT, timeout=60, interrupt_when=when, interrupt=kill)


@pytest.mark.parametrize(
    ("launcher", "number", "reason"),
    [
        (horovodrun("gloo", 2), signal.SIGTERM, "SIGTERM"),
        (horovodrun("mpi", 2), signal.SIGTERM, "the end of horovodrun"),
        (mpirun(2), signal.SIGTERM, "SIGTERM"),
        (mpirun(2), signal.SIGUSR1, "SIGUSR1"),
        ([], signal.SIGTERM, "SIGTERM"),
    ],
    ids=["horovodrun-gloo", "horovodrun-mpi", "mpirun", "mpirun-USR1", "alone"],
)
def test_signal_to_the_launcher_stops_all_ranks(launcher: List[str], number: int, reason: str, song_file, tmp_path):
    argv = [*launcher, *TRAIN, *TINY, *LONG, f"--corpus={song_file}"]
    assert ask(argv, tmp_path, number).returncode != 0
    assert stopped_step(tmp_path / "run", reason) > 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_signal_to_the_supervisor_stops_all_ranks(number: int, song_file, tmp_path):
    argv = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--max-restarts=3"]
    done = ask([*argv, *TINY, *LONG, f"--corpus={song_file}"], tmp_path, number)
    assert done.returncode == 75
    name = signal.Signals(number).name
    step = stopped_step(tmp_path / "run", name)
    assert done.stderr.splitlines()[-1] == (
        f"stopped by {name}; resume from step {step} with: {ROOT}/launch/local.sh -n 2 --gloo --resume " "--run-dir run"
    )


@pytest.mark.parametrize("moment", [0.05, 0.4, 0.8, 1.2, None])
def test_signal_during_startup_leaves_no_partial_files(moment: Optional[float], song_file, tmp_path):
    argv = [sys.executable, *TRAIN[1:], *TINY, *LONG, f"--corpus={song_file}"]
    job = subprocess.Popen(argv, cwd=tmp_path, env=environment(ENVIRONMENT), stdout=subprocess.DEVNULL)
    try:
        began = time.monotonic()
        while time.monotonic() < began + (30 if moment is None else moment):
            if moment is None and (tmp_path / "run" / "log.txt").exists():
                break
            time.sleep(0.01)
        job.terminate()
        # A signal ends the program until its start is over, which has to be before it writes files.
        assert job.wait(timeout=30) in ((75,) if moment is None else (75, 128 + signal.SIGTERM, -signal.SIGTERM))
    finally:
        job.kill()
        job.wait()
    if (tmp_path / "run" / "checkpoints").exists():
        for path in (tmp_path / "run" / "checkpoints").iterdir():
            assert path.suffix == ".safetensors"
    if job.returncode == 75:
        stopped_step(tmp_path / "run", "SIGTERM")


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGUSR1])
def test_signal_ends_a_worker_that_waits_for_a_file(number: signal.Signals, tmp_path: Path):
    """Nobody writes to the named pipe that it opens; the first step is far away, and so is a checkpoint."""
    os.mkfifo(tmp_path / "settings")
    argv = [sys.executable, *TRAIN[1:], *TINY, "--config=settings", "--run-dir=run"]
    job = subprocess.Popen(argv, cwd=tmp_path, env=environment(ENVIRONMENT), stderr=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: phases_on_host(f"process {job.pid}", 1) == [PHASES.index(CONFIGURING)], "the configuration")
        time.sleep(0.5)
        job.send_signal(number)
        _, stderr = job.communicate(timeout=5)
    finally:
        job.kill()
        job.wait()
    assert (job.returncode, stderr) == (128 + number, f"stopped by {number.name} while starting\n")
    assert [path.name for path in tmp_path.iterdir()] == ["settings"]


@pytest.mark.parametrize(
    ("program", "library", "line"),
    [
        ("train", "mxnet", "stopped by SIGINT while starting"),
        ("sample", "pydantic", "stopped by SIGINT while starting"),
        ("scale", "pydantic", "error: interrupted"),
        ("prepare", "numpy", "error: interrupted"),
    ],
)
def test_ctrl_c_during_the_imports_is_one_line(program: str, library: str, line: str, tmp_path: Path):
    """The library is one that sends the signal while it is imported."""
    (tmp_path / f"{library}.py").write_text("import os, time\nos.kill(os.getpid(), 2)\ntime.sleep(20)\n")
    path = str(ROOT / "jobs" / f"{program}.py")
    code = f"import runpy, sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.argv = [{path!r}]\n"
    done = run(["python", "-c", f"{code}runpy.run_path({path!r}, run_name='__main__')"], env=ENVIRONMENT, timeout=15)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", f"{line}\n")


def test_time_limit_and_stop_file_stop_the_run(song_file, tmp_path):
    argv = [*mpirun(2), *TRAIN, *TINY, *LONG, f"--corpus={song_file}", "--time-limit=3s"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 75
    step = stopped_step(tmp_path / "run", "--time-limit")
    (tmp_path / "run" / "STOP").touch()
    done = run([*mpirun(2), *TRAIN, "--resume", "--run-dir=run"], cwd=tmp_path, env=ENVIRONMENT)
    assert done.returncode == 75
    assert json.loads((tmp_path / "run" / "status.json").read_text())["reason"] == "the file STOP"
    assert int(newest(tmp_path / "run").stem.split("-")[1]) > step
    assert not (tmp_path / "run" / "STOP").exists()


def test_supervisor_restarts_after_a_lost_worker(song_file, tmp_path):
    """launch/supervise.py resumes real workers after a rank is killed, before and after a first restart."""
    supervise = [sys.executable, str(ROOT / "launch" / "supervise.py"), "--max-restarts=2"]
    flags = [*TINY, "--epochs=40", "--checkpoint-every=20epochs", f"--corpus={song_file}"]
    whole = run([*mpirun(2), *TRAIN, *flags, "--run-dir=whole"], cwd=tmp_path, env=ENVIRONMENT)
    assert whole.returncode == 0, whole.stderr
    run_dir = tmp_path / "run"

    middle = run_dir / "checkpoints" / "step-000000580.safetensors"

    def kill_twice(_: int) -> None:
        os.kill(json.loads((run_dir / "status.json").read_text())["pid"], signal.SIGKILL)
        while "resumed after step 580," not in (run_dir / "log.txt").read_text():
            time.sleep(0.05)
        os.kill(json.loads((run_dir / "status.json").read_text())["pid"], signal.SIGKILL)

    argv = [*supervise, "--mpi", *flags, "--run-dir=run"]
    done = run(argv, cwd=tmp_path, env=ENVIRONMENT, interrupt_when=middle.exists, interrupt=kill_twice)
    assert done.returncode == 0, done.stderr
    for number in (1, 2):
        assert re.search(
            rf"error: .*exited without reporting an error.*; restarting from step 580 \(restart {number} of 2\)\n",
            done.stderr,
        )
    same_bits(tmp_path / "whole", run_dir)
