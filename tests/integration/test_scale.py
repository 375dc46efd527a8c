"""jobs/scale.py with a small model writes a row for every job, also after a failed job or an interruption."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, List

import pytest

from lstm_dist.files import claim
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.programs.scale import main
from tests.support.launchers import ENVIRONMENT
from tests.support.layered import LayeredEnvironment
from tests.support.network import wait_until
from tests.support.programs import ROOT, environment, run
from tests.support.refusals import refusal
from tests.support.scaling_results import read_rows

SCALE = ("python", str(ROOT / "jobs" / "scale.py"))
REPORT = str(ROOT / "jobs" / "report.py")
SMALL = ("--streams=4", "--steps=4", "--epochs=2", "--time-every=2", "--repeat=1")
TRAINED = ("--", "--hidden-size=8", "--seq-len=5")


def scale(*flags: str, trained: "tuple[str, ...]" = TRAINED, **how: Any) -> "subprocess.CompletedProcess[str]":
    return run([*SCALE, *SMALL, *flags, *trained], env=ENVIRONMENT, **how)


@pytest.mark.slow
def test_every_point_becomes_a_row(song_file: Path, tmp_path: Path):
    out = tmp_path / "out"
    trained = (*TRAINED, f"--corpus={song_file}")
    done = scale("--workers=1,2", f"--out={out}", "--to-perplexity=1000", trained=trained)
    assert done.returncode == 0, done.stderr
    assert "6 jobs measured, 0 of them failed" in done.stdout
    found = read_rows(out)
    assert sorted(found) == [f"{m}-n00{n}-r1" for m in ("perplexity", "strong", "weak") for n in (1, 2)]
    parameters = json.loads((out / "experiment.json").read_text())["parameters"]
    for name, row in found.items():
        mode, workers = name.split("-")[0], int(name[-4])
        assert (row["state"], row["mode"], row["workers"]) == ("finished", mode, workers)
        assert row["streams"] == (4 if mode == "strong" else 4 * workers)
        assert row["oversubscribed"] is (workers > row["cores"])
        if mode == "perplexity":
            assert row["reached"]
            assert row["chars"] % (row["streams"] * 5) == 0
            continue
        assert [epoch["steps"] for epoch in row["epochs"]] == [4], "the first epoch is the warm-up"
        assert {(one["step"], one["rank"]) for one in row["times"]} == {(s, r) for s in (6, 8) for r in range(workers)}
        assert all(one[part] > 0 for one in row["times"] for part in ("data", "compute", "wire", "update"))
        assert {one["bytes"] for one in row["times"]} == {row["bytes"]} == {4 * (FLAGS + parameters)}, "a small model"
        least = min(one["wait"] for one in row["times"])  # a busy machine may interrupt any of these steps
        assert least > 1e-5 if workers > 1 else least < 1e-4, "only several workers wait for each other"
    logs = [(out / f"points/weak-n00{n}-r1/run/log.txt").read_text(encoding="utf-8") for n in (1, 2)]
    assert [log.count(" left | slowest: worker ") for log in logs] == [0, 1]
    assert "% of 4 timed steps); wait " in logs[1], "steps 2, 4, 6 and 8"
    run_dir = out / "points/weak-n002-r1/run"
    traced = run([sys.executable, REPORT, str(run_dir), "--trace"], env=ENVIRONMENT)
    assert "4 timed steps of 2 workers on 1 host" in traced.stdout, traced.stderr
    assert json.loads((run_dir / "trace.json").read_bytes())["traceEvents"]
    experiment = json.loads((out / "experiment.json").read_text())
    assert experiment.pop("layers") == 1
    (out / "experiment.json").write_text(
        json.dumps(experiment)
    )  # as an earlier version wrote it, before the setting existed
    again = scale("--workers=1,2", f"--out={out}", "--to-perplexity=1000", trained=trained)
    assert "0 jobs measured" in again.stdout
    assert read_rows(out) == found
    other = scale("--workers=1,2", f"--out={out}", "--to-perplexity=900", trained=trained)
    assert "error: --to-perplexity 900: the target of perplexity-n00" in other.stderr
    assert other.returncode == 2
    other = scale("--workers=1,2", f"--out={out}", trained=(*trained, "--hidden-size=9"))
    assert f"error: --out {out}: holds another experiment, whose hidden_size was 8 and is 9" in other.stderr
    assert other.returncode == 78
    (out / "points/strong-n001-r1/row.json").write_text(json.dumps({**found["strong-n001-r1"], "code": "another"}))
    (out / "points/weak-n001-r1/row.json").unlink()
    mixed = scale("--workers=1,2", f"--out={out}", trained=trained)
    assert mixed.returncode == 65
    assert "differ in code: " in mixed.stderr
    mixed = scale("--workers=1,2", f"--out={out}", "--allow-mixed", trained=trained)
    assert mixed.returncode == 0, mixed.stderr


@pytest.mark.slow
def test_experiment_continues_after_interruption_and_failed_job(song_file: Path, tmp_path: Path):
    out = tmp_path / "out"
    flags = ["--workers=1,2", "--mode=strong", "--repeat=2", f"--out={out}"]
    trained = (*TRAINED, f"--corpus={song_file}")
    command = [sys.executable, SCALE[1], *SMALL, *flags, *trained]
    quiet = subprocess.DEVNULL
    sweep = subprocess.Popen(command, env=environment(ENVIRONMENT), stdout=quiet, stderr=quiet, start_new_session=True)
    try:
        wait_until(
            lambda: len(read_rows(out)) == 1 and len(list(out.glob("points/*/run/config.json"))) == 2, "a point", 60
        )
    finally:
        sweep.kill()
        sweep.wait(timeout=10)
    kept = read_rows(out)
    wait_until(lambda: not started_in(out), "the end of what it had started", 30)

    def computing() -> List[int]:
        """Return the workers of the two-worker job once they train."""
        begun = list(out.glob("points/strong-n002-r1/run/run.json"))
        return [pid for pid in started_in(out) if begun and "strong-n002-r1" in cmdline(pid)]

    shutil.rmtree(out / "points/strong-n002-r1", ignore_errors=True)
    done = scale(
        *flags, "--only=strong-n002-r1", trained=trained,
        interrupt_when=lambda: bool(computing()), interrupt=lambda _: os.kill(computing()[0], signal.SIGKILL),
    )  # fmt: skip
    assert done.returncode == 1, done.stderr
    row = read_rows(out)["strong-n002-r1"]
    assert (row["state"], row["status"], row["epochs"]) == ("failed", 76, [])
    assert "exited without reporting an error" in row["message"]
    assert f"strong-n002-r1: failed with status 76: {row['message']}" in done.stderr
    done = scale(*flags, "--retry-failed", trained=trained)
    assert done.returncode == 0, done.stderr
    found = read_rows(out)
    assert sorted(found) == [f"strong-n00{n}-r{r}" for n in (1, 2) for r in (1, 2)]
    assert all(row["state"] == "finished" for row in found.values())
    for name, row in kept.items():
        assert name == "strong-n002-r1" or found[name] == row


def started_in(out: Path) -> List[int]:
    """Return the workers of jobs that write to this folder."""
    pids = [int(path.name) for path in Path("/proc").glob("[0-9]*")]
    return [pid for pid in pids if "jobs/train.py" in cmdline(pid) and str(out) in cmdline(pid) and is_python(pid)]


def cmdline(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def is_python(pid: int) -> bool:
    return cmdline(pid).split(" ")[0].endswith("python") and "horovodrun" not in cmdline(pid)


@pytest.mark.slow
@pytest.mark.parametrize("controller", ["mpi", "gloo"])
def test_network_is_measured_without_training(controller: str, tmp_path: Path):
    out = tmp_path / "out"
    done = scale(
        "network", "--workers=1,2", "--seconds=0.2", "--largest=2", f"--controller={controller}", f"--out={out}"
    )
    assert done.returncode == 0, done.stderr
    found = read_rows(out, "network")
    assert sorted(found) == sorted([f"horovod-{controller}-n002", "mpi-n002"])
    for row in found.values():
        assert [size["bytes"] for size in row["sizes"]] == [2**k for k in range(10, 22)]
        assert all(len(size["seconds"]) >= 4 and min(size["seconds"]) > 0 for size in row["sizes"])
        # The minimum, because concurrent tests can delay single measurements.
        assert min(row["sizes"][-1]["seconds"]) > min(row["sizes"][0]["seconds"])


@pytest.mark.slow
def test_timeline_of_a_job_is_written(song_file: Path, tmp_path: Path):
    flags = ["--workers=1,2", "--only=weak-n002-r1", f"--out={tmp_path}/out", f"--timeline={tmp_path}/timeline.json"]
    done = scale(*flags, trained=(*TRAINED, f"--corpus={song_file}"))
    assert done.returncode == 0, done.stderr
    assert "gradients" in (tmp_path / "timeline.json").read_text()


@pytest.mark.slow
def test_dry_run_prints_the_commands_and_writes_nothing(tmp_path: Path):
    done = scale("--workers=1,2", f"--out={tmp_path}/out", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    plan, *lines = done.stdout.splitlines()
    assert plan == "# 4 jobs (2 --workers x 2 --mode)"
    assert len(lines) == 4
    assert all("launch/supervise.py -n " in line and "--hidden-size=8" in line for line in lines)
    assert len({line.split("--run-dir=")[1] for line in lines}) == 4
    done = scale("--workers=1,2,4", f"--out={tmp_path}/out", "--dry-run", "-H", "node1:2,node2:2")
    assert [line.split("-H ")[1].split()[0] for line in done.stdout.splitlines() if "n004" in line] == [
        "node1:2,node2:2",
        "node1:2,node2:2",
    ]
    assert {line.split("-H ")[1].split()[0] for line in done.stdout.splitlines() if "n002" in line} == {"node1:2"}
    assert not list(tmp_path.iterdir())


def dry_run(capsys: pytest.CaptureFixture, *flags: str) -> List[str]:
    assert main([*SMALL, "--mode=weak", "--dry-run", *flags, *TRAINED]) == 0
    return capsys.readouterr().out.splitlines()


def test_every_combination_is_a_job_with_its_own_flags(tmp_path: Path, capsys: pytest.CaptureFixture):
    factors = ("--workers-per-node=2,1", "--threads=1,2", "--controller=gloo,mpi", "--wire-dtype=float16,float32")
    plan, *lines = dry_run(capsys, "--workers=2,4", *factors, "-H", "a:2,b:2", f"--out={tmp_path}/out")
    sizes = "2 --workers x 2 --controller x 2 --workers-per-node x 2 --threads x 2 --wire-dtype"
    assert plan == f"# 24 jobs ({sizes}); left out, as the hosts have no room: 4 workers with 1 per node"
    jobs = {line.split("/points/")[1].split("/")[0]: line for line in lines}
    assert len(jobs) == 24
    own, varied = jobs["weak-n002-r1"], jobs["weak-n002-pernode1-threads2-mpi-float32-r1"]
    assert " -H a:2 --gloo " in own
    assert own.count("--wire-dtype=float16") == 1
    assert varied.startswith("OMP_NUM_THREADS=2 ")
    assert " -H a:1,b:1 --mpi " in varied
    assert varied.rindex("--wire-dtype=float32") > varied.rindex("--wire-dtype=float16"), "the last one counts"
    assert "-H a:2,b:2 " in jobs["weak-n004-r1"]


def test_jobs_of_an_array_request_their_nodes_and_cores(tmp_path: Path, capsys: pytest.CaptureFixture):
    flags = ("--workers=1,4", "--workers-per-node=4,2", "--threads=1,3", "--slurm-array")
    _, *lines = dry_run(capsys, *flags, f"--out={tmp_path}/out")
    requests = {line.split("scaling.sbatch ")[1].split(" -- ")[0]: line.split() for line in lines}
    assert len(requests) == 8
    words = requests["weak-n004-pernode2-threads3-r1"]
    assert {"--nodes=2", "--ntasks=4", "--ntasks-per-node=2", "--cpus-per-task=3"} < set(words)
    assert "--nodes=1" in requests["weak-n004-r1"]
    assert not [word for word in requests["weak-n004-r1"] if word.startswith("--cpus-per-task")]


@pytest.mark.slow
def test_programs_run_on_a_login_node_without_mxnet(tmp_path: Path):
    environment = LayeredEnvironment(tmp_path / "venv")
    environment.package("mxnet", "raise OSError('libcuda.so.1: cannot open shared object file')")
    for words in ([*SCALE[1:], "--workers=1,2", f"--out={tmp_path}/out", "--dry-run"], [REPORT, "--help"]):
        done = run([str(environment.python), *words], env=ENVIRONMENT)
        assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers=0"], "--workers 0: should be positive integers separated by commas, as in 1,2,4"),
        (["--workers=2,,4"], "--workers 2,,4: should be positive integers separated by commas, as in 1,2,4"),
        (
            ["--workers=1,8"],
            "--workers 1,8: 8 workers are more than the 4 --streams that they share in strong scaling: use more ",
        ),
        (["--workers=1,2", "--mode=best"], "--mode best: 'best' should be one of weak, strong"),
        (["--workers=1,2", "--warm-up=2"], "--warm-up 2: should be less than --epochs 2"),
        (["--workers=1,2", "--steps=0"], "--steps 0: should be at least 1"),
        (["--workers=1,2", "--to-perplexity=0.5"], "--to-perplexity 0.5: should be above 1"),
        (["--workers=1,2", "--timeline=t.json"], "--timeline t.json: records a single job, but 4 remain: add --only"),
        (["--workers=1,2", "--only=weak-n9"], "--only weak-n9: no such job in this experiment"),
        (["--workers=1,2", "--launcher=srun"], "--launcher srun: not in a Slurm allocation"),
        (
            ["--workers=1,2,4", "-H", "a:1,b:1"],
            "--workers 1,2,4: at most 2 can run (horovodrun --mpi on a:1,b:1)",
        ),
        (
            ["--workers=1,2", "--seconds=2"],
            "--seconds 2.0: only for network: use `jobs/scale.py network`, or leave it out",
        ),
        (["network", "--workers=1"], "--workers 1: one worker does not communicate: give more, as in 1,2,4"),
        (["--workers=1,2", "--max-epochs=9"], "--max-epochs 9: only with --to-perplexity"),
        (["--workers=1,2", "--per-node=2"], "--workers-per-node 2: only with -H, --hostfile, --launcher srun or "),
        (["--workers=1,2", "--threads=1,0"], "--threads 1,0: should be positive integers separated by commas, as in 1"),
        (["--workers=1,2", "--controller=gloo,nccl"], "--controller gloo,nccl: 'nccl' should be one of mpi, gloo"),
        (["--workers=1,2", "--wire-dtype=int8"], "--wire-dtype int8: 'int8' should be one of float32, float16"),
        (["network", "--workers=2", "--threads=1,2"], "--threads 1,2: only for training: leave it out"),
        (
            ["--workers=4", "--workers-per-node=2,1", "-H", "a:2,b:2"],
            "--workers-per-node 2,1: 4 --workers do not fit on the hosts with 1 on each: give more",
        ),
        (["--workers=1,2", "--slurm-array", "--controller=mpi,gloo"], "--controller mpi,gloo: only for horovodrun, "),
        (["--workers=1,2", "--slurm-array", "--controller=gloo"], "--controller gloo: only for horovodrun, "),
        (["--workers=1,2", "--interface=eth0"], "--interface eth0: only with -H or --hostfile: add one, or leave it"),
        (["network", "--workers=1,2", "--to-perplexity=9"], "--to-perplexity 9.0: only for training: leave it out"),
        (["--workers=1,2", "--slurm-array", "-H", "a:1"], "-H a:1: only for horovodrun, as Slurm selects the nodes"),
        (["--workers=1,2", "--time-every=-1"], "--time-every -1: should be at least 0"),
        (["network", "--workers=1,2", "--seconds=nan"], "--seconds nan: should be a finite number"),
        (["--workers=1,2", "--to-perplexity=inf"], "--to-perplexity inf: should be a finite number"),
        (["--workers=1,2", "--wire-dtype="], "--wire-dtype : '' should be one of float32, float16"),
        (["--workers=2", "-H", "a:2", "--workers-per-node="], "--workers-per-node : should be positive integers"),
        (
            ["--workers=1,2", "--slurm-array", "--sbatch=--comment='a b"],
            "--sbatch --comment='a b: cannot be split into flags (No closing quotation): check its quotes",
        ),
        (["--worker=1"], "--workers"),
        (["512", "--workers=1"], "512: should be training or network; flags of jobs/train.py go after a --"),
    ],
)
def test_invalid_flag_is_reported_in_one_line(
    flags: List[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture
):
    status, said = refusal(main, [*SMALL, *flags, f"--out={tmp_path}/out", *TRAINED], capsys)
    assert status == 2
    assert message in said
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_program_refuses_an_invalid_flag_within_15_seconds(tmp_path: Path):
    began = time.monotonic()
    done = scale("--workers=0", f"--out={tmp_path}/out")
    assert time.monotonic() - began < 15
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "error: --workers 0: should be positive integers separated by commas, as in 1,2,4\n"
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("flag", ["--epochs=3", "--global-batch-size=8", "--run-dir=x", "--max-chars=9", "--seed=2"])
def test_training_flags_that_the_points_determine_are_refused(flag: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [*SMALL, "--workers=1,2", f"--out={tmp_path}/out", *TRAINED, flag]
    status, message = refusal(main, words, capsys)
    assert status == 2
    assert message.startswith(f"{flag.split('=')[0]} after --: the points determine it: ")


def test_network_jobs_are_counted_by_workers_and_paths(tmp_path: Path, capsys: pytest.CaptureFixture):
    for flags, plan in (
        (["--workers=1,2,4", "--controller=mpi,gloo"], "# 6 jobs (2 --workers x 3 paths)"),
        (["--workers=1,2"], "# 2 jobs (2 paths)"),
    ):
        assert main(["network", *flags, "--dry-run", f"--out={tmp_path}/out"]) == 0
        assert capsys.readouterr().out.splitlines()[0] == plan


@pytest.mark.parametrize("name", ["array.json", "points/weak-n001-r1/row.json"])
def test_damaged_file_of_the_folder_is_named(name: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    file = tmp_path / "out" / name
    file.parent.mkdir(parents=True)
    file.write_text("{")
    status, message = refusal(main, [*SMALL, "--workers=1,2", f"--out={tmp_path}/out", *TRAINED], capsys)
    assert status == 65
    assert message.startswith(f"{file}: is damaged (Expecting property name")


@pytest.fixture
def no_job(monkeypatch: pytest.MonkeyPatch) -> None:
    """Prepare the folder of an experiment without running its jobs."""
    monkeypatch.setattr("lstm_dist.programs.scale.measure", lambda *_: [])


NETWORK = ("network", "--workers=1,2", "--epochs=9", "--streams=3", "--threads=2")


@pytest.mark.usefixtures("no_job")
def test_network_takes_over_the_settings_of_the_folder(tmp_path: Path, capsys: pytest.CaptureFixture):
    out = f"--out={tmp_path}/out"
    assert main([*SMALL, "--workers=1,2", out, *TRAINED]) == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()}
    assert {"experiment.json", "corpus.txt"} < set(before)
    assert main([*NETWORK, out]) == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir() if path.is_file()} == before
    status, message = refusal(main, [*NETWORK, out, "--controller=gloo"], capsys)
    assert status == 78
    assert "whose launcher was horovodrun --mpi on this host and is horovodrun --gloo on this host" in message
    status, message = refusal(main, [*SMALL, "--workers=1,2", out, *TRAINED, "--layers=2"], capsys)
    assert status == 78
    assert "whose layers was 1 and is 2" in message


@pytest.mark.usefixtures("no_job")
def test_folder_goes_on_with_more_values_of_every_factor(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [*SMALL, "--workers=2,4", "--mode=weak", f"--out={tmp_path}/out"]
    assert main([*words, *TRAINED]) == 0
    settings = (tmp_path / "out" / "experiment.json").read_bytes()
    assert json.loads(settings)["flags"] == list(TRAINED[1:]), "as in folders from before there were factors"
    more = ["--threads=1,2", "--controller=mpi,gloo", "--wire-dtype=float32,float16"]
    capsys.readouterr()
    assert main([*words, *more, *TRAINED]) == 0
    assert capsys.readouterr().out.startswith("16 jobs (2 --workers x 2 --controller x 2 --threads x 2 --wire-dtype)\n")
    assert (tmp_path / "out" / "experiment.json").read_bytes() == settings
    status, message = refusal(main, [*words, "--threads=2,1", *TRAINED], capsys)
    assert status == 78
    assert "whose threads was 1 and is 2" in message


@pytest.mark.usefixtures("no_job")
def test_training_replaces_the_settings_that_network_did_not_need(tmp_path: Path):
    out = f"--out={tmp_path}/out"
    assert main([*NETWORK, out]) == 0
    for flags in ([], ["--repeat=2"]):
        assert main([*SMALL, "--workers=1,2", out, *flags, *TRAINED]) == 0
        experiment = json.loads((tmp_path / "out" / "experiment.json").read_text())
        assert (experiment["streams"], experiment["epochs"], experiment["hidden_size"]) == (4, 2, 8)


@pytest.mark.usefixtures("no_job")
def test_rows_of_an_experiment_in_use_are_kept(tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [*SMALL, "--workers=1,2", f"--out={tmp_path}/out", "--retry-failed", *TRAINED]
    assert main(words) == 0
    row = tmp_path / "out" / "points" / "weak-n001-r1" / "row.json"
    row.parent.mkdir()
    row.write_text('{"state": "failed"}')
    with claim(tmp_path / "out", "--out"):
        assert refusal(main, words, capsys).status == 73
    assert row.exists()


@pytest.mark.parametrize("what", ["training", "network"])
def test_hosts_are_checked_before_the_first_job(what: str, tmp_path: Path, capsys: pytest.CaptureFixture):
    words = [what, *SMALL, "--workers=1,2", "-H", "nowhere1.invalid:1,nowhere2.invalid:1", f"--out={tmp_path}/out"]
    status, message = refusal(main, [*words, *TRAINED], capsys)
    assert status == 78
    assert message.startswith("host nowhere1.invalid: ")
    assert message.endswith("(also not usable: nowhere2.invalid)")
    assert not list(tmp_path.iterdir())


def test_folder_with_other_files_is_refused_and_unchanged(tmp_path: Path, capsys: pytest.CaptureFixture):
    (tmp_path / "precious.txt").write_text("mine")
    words = [*SMALL, "--workers=1,2", *TRAINED]
    refused = refusal(main, [f"--out={tmp_path}", *words], capsys)
    assert refused == (73, f"--out {tmp_path}: holds other files: give a new folder")
    assert [path.name for path in tmp_path.iterdir()] == ["precious.txt"]
    refused = refusal(main, [f"--out={tmp_path}/precious.txt", *words], capsys)
    assert refused == (73, f"--out {tmp_path}/precious.txt: cannot be written (Not a directory)")
