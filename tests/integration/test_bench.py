"""jobs/bench.py with a small model runs every implementation, compares the gradients and writes all results."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Callable, List

import numpy as np
import pytest

from lstm_dist.programs import bench as bench_program
from lstm_dist.programs.bench import main
from tests.support.launchers import ENVIRONMENT
from tests.support.programs import ROOT, environment, run, started_by
from tests.support.refusals import refusal

BENCH = ("python", str(ROOT / "jobs" / "bench.py"))
SIZES = ["--streams=4", "--seq-len=5", "--hidden-size=16"]
SMALL = [*SIZES, "--vocab-size=50", "--turns=2"]
HAS_TORCH = importlib.util.find_spec("torch") is not None
needs_torch = pytest.mark.skipif(not HAS_TORCH, reason="torch is not installed: pip install -e '.[bench]'")
OURS_AND_MXNET = ["ours", "ours-dense", "textbook", "gluon", "matmul floor"]


def bench(*arguments: str, timeout: float = 240) -> "subprocess.CompletedProcess[str]":
    return run([*BENCH, *arguments], timeout=timeout, env=ENVIRONMENT)


@pytest.mark.slow
def test_mxnet_implementations_are_timed(tmp_path: Path):
    done = bench(*SMALL, "--only", ",".join(OURS_AND_MXNET), "--json", str(tmp_path / "b.json"))
    assert done.returncode == 0, done.stderr
    for name in OURS_AND_MXNET:
        assert f" {name} |" in done.stdout
    timings = json.loads((tmp_path / "b.json").read_text())["timings"]
    assert [t["contestant"] for t in timings] == OURS_AND_MXNET
    for timing in timings:
        assert len(timing["seconds_per_step"]) == 2
        low, median, high = timing["ms_per_step"].values()
        assert 0 < low <= median <= high
        assert timing["chars_per_sec"] == pytest.approx(20_000 / median)


@pytest.mark.slow
def test_guards_are_timed():
    done = bench(*SMALL, "--guards")
    assert done.returncode == 0, done.stderr
    for name in ("ours, guarded", "ours, timed"):
        assert f" {name} |" in done.stdout


@pytest.mark.slow
def test_profile_prints_a_table_of_operators():
    # Large enough for some operators to take 0.1 ms, because the table omits those that take less.
    done = bench("--streams=32", "--seq-len=5", "--hidden-size=256", "--vocab-size=50", "--profile")
    assert done.returncode == 0, done.stderr
    header = [cell.strip() for cell in done.stdout.splitlines()[1].split("|")[1:-1]]
    assert header == ["operator", "calls per step", "ms per step"]


@pytest.mark.slow
@needs_torch
def test_pytorch_implementations_are_timed():
    names = ["ours", "torch-lstm", "torch-cell", "torch-compiled"]
    done = bench(*SMALL, "--only", ",".join(names))
    assert done.returncode == 0, done.stderr
    for name in names:
        assert f" {name} |" in done.stdout


@pytest.mark.slow
def test_two_workers_are_timed_with_all_variants(tmp_path: Path):
    # The program itself compares the gradients of strong scaling with those of one worker.
    done = bench(*SMALL, "--workers=2", "--json", str(tmp_path / "b.json"))
    assert done.returncode == 0, done.stderr
    timings = json.loads((tmp_path / "b.json").read_text())["timings"]
    found = {(t["contestant"], t["workers"], t["streams"], t["controller"]) for t in timings}
    expected = {("ours", 1, 4, None)}
    for streams in (8, 4):
        variants = ("ours", "ours-dense", "ours, without exchange", "ours, timed")
        expected |= {*((variant, 2, streams, "mpi") for variant in variants), ("ours", 2, streams, "gloo")}
        expected |= {("torch-ddp", 2, streams, "gloo")} if HAS_TORCH else set()
    assert found >= expected


@pytest.mark.slow
def test_training_on_a_large_corpus_is_compared_with_the_packaged_songs():
    done = bench(*SIZES, "--large=2", "--turns=1", "--seconds=5")
    assert done.returncode == 0, done.stderr
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in done.stdout.splitlines()[1:]]
    assert rows[0] == ["sampling", "steps/s, songs", "steps/s, large", "large / songs", "startup delay, s"]
    assert [row[0] for row in rows[2:]] == ["consecutive", "random"]
    for _, songs, large, ratio, _ in rows[2:]:
        assert float(ratio.split()[0]) == pytest.approx(float(large) / float(songs), rel=0.05)


def test_sizes_are_tabulated_and_plotted(tmp_path: Path):
    from lstm_dist.bench import plot, table
    from lstm_dist.bench.case import Case
    from lstm_dist.bench.interleaved import Timing
    from lstm_dist.bench.worker_pool import Entry

    base = Case(4, 5, 16, 50)
    cases = [base, base._replace(hidden_size=32)]
    timings = [Timing(Entry(name, c), [0.01, 0.02, 0.03], 0) for c in cases for name in ("ours", "torch-cell")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.of_sizes(timings, base).splitlines()]
    assert rows[0] == ["µs per character", "ours", "torch-cell"]
    assert rows[2:] == [["base sizes", "1000.0", "1000.0"], ["hidden_size 32", "1000.0", "1000.0"]]
    plot.of_sizes(timings, base, {"hidden_size": (32,)}, tmp_path / "sizes.png")
    assert (tmp_path / "sizes.png").read_bytes().startswith(b"\x89PNG")


def test_bytes_of_a_step_are_those_of_the_touched_rows():
    from lstm_dist.bench import table
    from lstm_dist.bench.case import Case
    from lstm_dist.bench.interleaved import Timing
    from lstm_dist.bench.worker_pool import Entry

    case = Case(workers=2)  # the D2L chapter's sizes: 9.2 MB for all parameters, of which 6.0 for W_x
    names = ("ours", "ours-dense", "ours, without exchange", "torch-ddp")
    text = table.of_scaling([Timing(Entry(name, case), [0.01], 0) for name in names])
    header, _, *rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines()]
    ours, dense, none, ddp = [row[header.index("MB sent per step")] for row in rows]
    assert (dense, none, ddp) == ("8.56", "", "8.56")
    assert 0.4 < float(ours) / float(dense) < 0.52


def test_different_gradients_are_refused():
    from lstm_dist.bench.case import Case
    from lstm_dist.bench.interleaved import require_equal
    from lstm_dist.bench.worker_pool import Entry
    from lstm_dist.errors import UserError

    reference = {"loss": np.array(3.0), "W_hy": np.array([[1.0, -2.0]])}
    entry = Entry("wrong", Case())
    require_equal(entry, {"loss": np.array(3.0002), "W_hy": np.array([[1.0001, -2.0]])}, reference)
    for other in ([[1.0, -1.999]], [[0.0, 0.0]], [[np.nan, -2.0]]):
        with pytest.raises(UserError, match="wrong: the gradient of W_hy of the first step differs by .* from that of"):
            require_equal(entry, {"loss": np.array(3.0), "W_hy": np.array(other)}, reference)
    with pytest.raises(UserError, match="wrong: the loss of the first step differs"):
        require_equal(entry, {"loss": np.array(3.1), "W_hy": reference["W_hy"]}, reference)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--turns=0"], "--turns 0: should be at least 1"),
        (["--only=ours,keras"], "--only keras: unknown implementation; choose from: ours, ours-dense, textbook, gluon"),
        (["--json=/nowhere/b.json"], "--json /nowhere/b.json: the folder /nowhere does not exist; create it first"),
        (["--seconds=9"], "--seconds 9: has no effect without --large; leave it out"),
        (["--guards", "--only=ours"], "--only ours: has no effect with --guards; leave it out"),
        (["--prepare=9", "--hidden-size=9"], "--hidden-size 9: has no effect with --prepare; leave it out"),
        (["--picture=b.png"], "--picture: plots the result of --sizes; add --sizes"),
        (["--worker=2"], "--worker: no such flag, did you mean --workers?"),
        (["--gpu"], "--gpu: MXNet finds no GPU here: launch/doctor.py says why; leave it out to measure on the CPU"),
        (["--workers=5", "--streams=4"], "--workers 5: more than --streams 4"),
    ],
)
def test_invalid_flag_is_reported_in_one_line(
    arguments: List[str], message: str, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench_program, "visible_gpus", list)  # as on a machine without a GPU
    status, said = refusal(main, arguments, capsys)
    assert status == 2
    assert said.startswith(message)


@pytest.mark.slow
def test_program_refuses_an_invalid_flag():
    done = bench("--turns=0")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "error: --turns 0: should be at least 1\n")


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
def test_no_worker_outlives_the_benchmark(how: signal.Signals):
    mark = uuid.uuid4().hex
    command = [sys.executable, BENCH[1], *SMALL, "--only=ours,gluon", "--turns=100000"]
    variables = {**environment(ENVIRONMENT), "LSTM_DIST_TEST_PROGRAM": mark}
    quiet = subprocess.DEVNULL
    program = subprocess.Popen(command, env=variables, stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        assert eventually(
            lambda: sum(is_stopped(pid) for pid in started_by(mark)) == 1
        ), "the implementations do not take turns"
        os.kill(program.pid, how)
        assert program.wait(timeout=30) != 0
        assert eventually(lambda: not started_by(mark)), started_by(mark)
    finally:
        for pid in started_by(mark):
            os.kill(pid, signal.SIGKILL)
        program.wait(timeout=30)


def is_stopped(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] == "T"
    except OSError:
        return False


def eventually(holds: Callable[[], bool], seconds: float = 60) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.05)
    return holds()
