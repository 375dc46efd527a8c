"""launch/supervise.py with a fake horovodrun: the command and output it forwards, and how it classifies each end."""

import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path
from typing import List, Optional

import pytest

from lstm_dist.programs.supervise import main
from tests.support.layered import LayeredEnvironment
from tests.support.network import wait_until
from tests.support.programs import ROOT, TINY, environment, run
from tests.support.refusals import refusal

pytestmark = pytest.mark.slow

SUPERVISE = str(ROOT / "launch" / "supervise.py")


class Machine:
    """An environment with the real Python and a fake horovodrun."""

    def __init__(self, root: Path) -> None:
        environment = LayeredEnvironment(root / "venv")
        self.root, self.bin, self.python = root, environment.bin, environment.python
        self.run_dir = root / "run"

    def horovodrun(self, text: str) -> None:
        path = self.bin / "horovodrun"
        path.write_text(text)
        path.chmod(0o755)

    def environment(self, **more: Optional[str]) -> "dict[str, Optional[str]]":
        return {"PYTHONPATH": None, "LSTM_DIST_TERMINAL": None, **more}

    def start(self, *arguments: str, **more: Optional[str]) -> "subprocess.CompletedProcess[str]":
        argv = [str(self.python), SUPERVISE, *arguments, f"--run-dir={self.run_dir}"]
        return run(argv, cwd=self.root, env=self.environment(**more), timeout=60)


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path)
    machine.horovodrun('#!/bin/sh\nprintf "%s\\n" "$@" "utf8=$PYTHONUTF8" "terminal=$LSTM_DIST_TERMINAL" "in=$PWD"\n')
    return machine


def test_all_flags_are_forwarded(machine: Machine) -> None:
    result = machine.start("-n", "4", "--mpi", "--epochs", "20", "--corpus", "my text.txt")
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [
        "--disable-cache", "--mpi", "-np", "4", str(machine.python), str(ROOT / "jobs/train.py"), "--epochs", "20",
        "--corpus", "my text.txt", f"--run-dir={machine.run_dir}", "utf8=1", "terminal=", f"in={machine.root}",
    ]  # fmt: skip
    assert machine.start().stdout.splitlines()[:4] == ["--disable-cache", "--gloo", "-np", "2"]
    # The terminal of an outer run is not inherited.
    assert "terminal=\n" in machine.start(LSTM_DIST_TERMINAL="/dev/pts/9").stdout


def test_variables_of_other_pythons_do_not_reach_the_job_and_its_output_is_utf_8(machine: Machine) -> None:
    machine.horovodrun('#!/bin/sh\nenv | grep -E "^PYTHON(UTF8|I|O|DEV|P)" | sort\necho 分开\n')
    foreign = {"PYTHONIOENCODING": "latin-1", "PYTHONDEVMODE": "1", "PYTHONOPTIMIZE": "2", "PYTHONPATH": "/opt/other"}
    result = machine.start(**foreign)
    assert (result.returncode, result.stdout, result.stderr) == (0, f"PYTHONPATH={ROOT}\nPYTHONUTF8=1\n分开\n", "")


@pytest.mark.parametrize("words", [["-np", "3"], ["-np3"], ["--mpi", "-np=3", "--epochs", "5"]])
def test_flag_of_horovodrun_for_the_number_of_workers_is_answered_with_ours(
    words: List[str], capsys: pytest.CaptureFixture
) -> None:
    assert refusal(main, words, capsys) == (2, "-np: the number of workers is given as -n 3")


def test_both_controllers_are_refused(capsys: pytest.CaptureFixture) -> None:
    assert refusal(main, ["--gloo", "--mpi"], capsys) == (
        2, "--mpi: cannot be combined with --gloo: leave one of them out"
    )  # fmt: skip


def test_default_run_directory_is_removed_if_the_run_never_began(machine: Machine) -> None:
    machine.horovodrun('#!/bin/sh\nprintf "%s\\n" "$@"\nls runs\n')
    result = run([str(machine.python), SUPERVISE], cwd=machine.root, env=machine.environment(), timeout=60)
    given, seen = re.search(r"--run-dir=runs/(\S+)\n(\S+)\n$", result.stdout).groups()
    assert given == seen
    assert not list((machine.root / "runs").iterdir())


@pytest.mark.parametrize(
    "arguments",
    [["-n", "0"], ["-n", "abc"], ["-n2x"], ["-n", ""], ["--max-restarts", "x"], ["--epoch=2"], ["--epochs=0"]],
)
def test_invalid_flag_is_reported_in_one_line_before_the_start(machine: Machine, arguments: List[str]) -> None:
    result = machine.start(*arguments)
    assert (result.returncode, result.stdout) == (2, "")
    assert len(result.stderr.splitlines()) == 1
    assert result.stderr.startswith(f"error: {arguments[0][:2]}")


def test_output_of_workers_is_forwarded(machine: Machine) -> None:
    """Lines of rank 0 lose their prefix, other ranks keep theirs, and horovodrun's own traceback is dropped."""
    machine.horovodrun(r"""#!/bin/sh
printf '[0]<stdout>:epoch 1\n[1,0]<stdout>:epoch 2\n[1]<stdout>:of rank 1\n[10]<stdout>:of rank 10\n'
printf '[0]<stderr>:error: a mistake\n[1]<stderr>:Traceback (most recent call last):\n[1]<stderr>:IndexError\n' >&2
printf 'Process 1 exit with status code 65.\nTerminating remaining workers after failure of Process 1.\n' >&2
printf 'Traceback (most recent call last):\n  File "horovodrun"\nRuntimeError\nExit code: %s\n' "$LSTM_DIST_CODE" >&2
exit 1
""")
    result = machine.start(LSTM_DIST_CODE="65")
    assert result.returncode == 65
    assert result.stdout.splitlines() == ["epoch 1", "epoch 2", "[1]<stdout>:of rank 1", "[10]<stdout>:of rank 10"]
    worker = ["error: a mistake", "[1]<stderr>:Traceback (most recent call last):", "[1]<stderr>:IndexError"]
    assert result.stderr.splitlines() == worker
    # A traceback without a worker's status is shown.
    other = machine.start(LSTM_DIST_CODE="no ssh")
    assert other.returncode == 1
    assert other.stderr.splitlines()[3:] == [
        "Process 1 exit with status code 65.", "Terminating remaining workers after failure of Process 1.",
        "Traceback (most recent call last):", '  File "horovodrun"', "RuntimeError", "Exit code: no ssh"
    ]  # fmt: skip


def test_secrets_are_not_forwarded(machine: Machine) -> None:
    machine.horovodrun("#!/bin/sh\nenv\n")
    names = ("MY_TOKEN", "AWS_SECRET_ACCESS_KEY", "HOROVOD_SECRET_KEY", "FOO")
    secrets = {name: "hunter2" for name in names}
    result = machine.start(**secrets, OMP_NUM_THREADS="3")
    assert result.returncode == 0, result.stderr
    assert "hunter2" not in result.stdout
    assert "OMP_NUM_THREADS=3" in result.stdout.splitlines()


ATTEMPT = """#!{python}
import json, os, signal, socket, sys, time
from pathlib import Path
sys.path.insert(0, {root!r})
from lstm_dist.files import claim, is_claimed
from lstm_dist.run.status import record_failure, write_status
run_dir, attempts = Path({run_dir!r}), Path({run_dir!r}).parent / "attempts"
number = len(attempts.read_text().splitlines()) if attempts.exists() else 0
with attempts.open("a") as file:
    file.write(" ".join(sys.argv[1:]) + "\\n")
if is_claimed(run_dir):
    sys.exit("the worker before is still there")
(run_dir / "checkpoints").mkdir(parents=True, exist_ok=True)
(run_dir / "errors").mkdir(exist_ok=True)
for path in (run_dir / "errors").iterdir():
    path.unlink()
(run_dir / "run.json").write_text(json.dumps({{"ranks": [{{"host": "here"}}, {{"host": "there"}}]}}))
step, kind = {plan}[number]
if step >= 0:
    (run_dir / "checkpoints" / f"step-{{step:09d}}.safetensors").touch()
reason = {{"stopped": "SIGTERM", "launcher": "the end of horovodrun"}}.get(kind)
write_status(run_dir, "stopped" if reason else "running", step=max(step, 0), reason=reason)
if kind == "talks":  # until it is asked to stop
    asked = []
    signal.signal(signal.SIGTERM, lambda *_: asked.append(1))
    while not asked:
        print("a line", flush=True)
        time.sleep(0.1)
    write_status(run_dir, "stopped", step=step, reason="SIGTERM")
if kind == "lost":
    record_failure(run_dir, 0, step, 76, "MXNetError", "Horovod has been shut down")
if kind in ("killed", "orphans"):
    worker = os.fork()  # which outlives horovodrun for a moment
    if worker == 0:
        lock = claim(run_dir)
        os.close(1), os.close(2)  # nor does it hold the output
        time.sleep(1)
        os._exit(0)
    time.sleep(0.3)
    if kind == "killed":
        os.kill(os.getpid(), 9)
if kind == "diverged":
    record_failure(run_dir, 0, step, 80, "CollectiveError", "the perplexity is high")
if kind in ("bug", "Stalled"):
    record_failure(run_dir, 0, step, 76, "MXNetError", "Horovod has been shut down")
    record_failure(run_dir, 1, step, 70, kind, "the cat")
sys.exit(0 if kind == "well" else 1)
"""


def attempts(machine: Machine, plan: list, *arguments: str) -> "tuple[subprocess.CompletedProcess[str], List[str]]":
    """Run a job whose attempts end as in `plan`, (checkpoint step, kind of end); return its result and their flags."""
    machine.horovodrun(ATTEMPT.format(python=machine.python, root=str(ROOT), run_dir=str(machine.run_dir), plan=plan))
    result = machine.start(*arguments)
    return result, (machine.root / "attempts").read_text().splitlines()


def test_lost_worker_is_reported_with_the_command_that_resumes(machine: Machine) -> None:
    result, made = attempts(machine, [(30, "lost")], "-n", "2")
    assert result.returncode == 76
    assert len(made) == 1
    assert result.stderr == (
        "error: rank 1 on there exited without reporting an error (at step 30 or later); resume from step 30 with: "
        f"{ROOT}/launch/local.sh -n 2 --gloo --resume --run-dir {machine.run_dir}\n"
    )


def test_first_cause_is_reported_and_a_bug_is_not_restarted(machine: Machine) -> None:
    result, made = attempts(machine, [(30, "bug")], "--max-restarts=3")
    assert (result.returncode, len(made)) == (70, 1)
    assert re.match(r"error: rank 1 on \S+, after step 30: the cat; resume from step 30 with: ", result.stderr)


def test_diverged_run_is_neither_restarted_nor_to_be_resumed(machine: Machine) -> None:
    result, made = attempts(machine, [(30, "diverged")], "--max-restarts=3")
    assert (result.returncode, len(made)) == (80, 1)
    assert re.fullmatch(r"error: rank 0 on \S+, after step 30: the perplexity is high\n", result.stderr)


@pytest.mark.parametrize("kind", ["lost", "Stalled", "stopped", "launcher", "killed", "orphans"])
def test_failure_that_a_restart_may_fix_is_restarted(machine: Machine, kind: str) -> None:
    result, made = attempts(machine, [(5, kind), (9, "well")], "--max-restarts=1", "--overwrite")
    assert (result.returncode, len(made)) == (0, 2)
    assert made[0].endswith(f"--overwrite --run-dir={machine.run_dir}")
    assert made[1].endswith(f"--run-dir={machine.run_dir} --auto-resume")
    assert "; restarting from step 5 (restart 1 of 1)\n" in result.stderr
    assert ("error: horovodrun (SIGKILL) exited without reporting an error (at step 5" in result.stderr) == (
        kind == "killed"
    )


LOST = "echo 'Traceback (most recent call last):\nExit code: {}' >&2; exit 1"


@pytest.mark.parametrize("end", [LOST.format(137), LOST.format(-9), "kill -9 $$"])
def test_worker_lost_during_startup_causes_a_restart(machine: Machine, end: str) -> None:
    machine.horovodrun(f'#!/bin/sh\n[ -e "$TMPDIR/again" ] && exit 0\ntouch "$TMPDIR/again"\n{end}\n')
    result = machine.start("--max-restarts=1", TMPDIR=str(machine.root))
    assert (result.returncode, result.stderr.count("\n")) == (0, 1)
    lost = "error: a worker was lost while the job was starting"
    assert f"{lost}; restarting from step 0 (restart 1 of 1)" in result.stderr
    (machine.root / "again").unlink()
    result = machine.start(TMPDIR=str(machine.root))
    assert (result.returncode, result.stderr) == (76, f"{lost}\n")


def test_failing_launcher_is_restarted_only_if_it_worked_before(machine: Machine) -> None:
    machine.horovodrun(
        '#!/bin/sh\n[ -e "$TMPDIR/again" ] && exit 0\ntouch "$TMPDIR/again"; echo no mpirun >&2; exit 1\n'
    )
    result = machine.start("--max-restarts=1", TMPDIR=str(machine.root))
    assert (result.returncode, result.stderr) == (1, "no mpirun\n")
    (machine.root / "again").unlink()
    (machine.run_dir / "checkpoints").mkdir(parents=True)
    (machine.run_dir / "checkpoints" / "step-000000005.safetensors").touch()
    result = machine.start("--resume", "--max-restarts=1", TMPDIR=str(machine.root))
    assert result.returncode == 0
    assert "error: horovodrun could not start the workers; restarting from step 5 (restart 1 of 1)\n" in result.stderr


def test_only_restarts_without_progress_are_counted(machine: Machine) -> None:
    plan = [(5, "lost"), (5, "lost"), (9, "lost"), (9, "lost"), (9, "lost"), (9, "well")]
    result, made = attempts(machine, plan, "--max-restarts=2")
    assert (result.returncode, len(made)) == (76, 5)
    assert "(at step 9 or later)" in result.stderr.splitlines()[-1]


def test_restart_without_a_checkpoint_starts_from_the_beginning(machine: Machine) -> None:
    result, made = attempts(machine, [(-1, "lost"), (4, "well")], "--max-restarts=1")
    assert (result.returncode, len(made)) == (0, 2)
    assert made[1].endswith(" --auto-resume")  # over the files of the first attempt


def test_restart_gets_the_remaining_time_limit(machine: Machine) -> None:
    result, made = attempts(machine, [(5, "lost"), (9, "well")], "--epochs=9", "--time-limit=1h", "--max-restarts=1")
    assert (result.returncode, len(made)) == (0, 2)
    rest = made[1].partition("train.py ")[2]
    known = f"--epochs=9 --time-limit=1h --run-dir={machine.run_dir}"
    assert re.fullmatch(rf"{known} --time-limit=35\d\ds --auto-resume", rest)


def test_status_of_another_job_is_ignored(machine: Machine) -> None:
    status = {"state": "running", "time": time.time() + 1000, "pid": 1, "host": "here", "attempt": "another", "step": 3}
    machine.run_dir.mkdir()
    (machine.run_dir / "status.json").write_text(json.dumps(status))
    machine.horovodrun("#!/bin/sh\necho 'Traceback (most recent call last):\nExit code: 73' >&2\nexit 1\n")
    result = machine.start("--max-restarts=3")
    assert (result.returncode, result.stderr) == (73, "")


def test_stopped_job_is_not_restarted(machine: Machine) -> None:
    machine.horovodrun("#!/bin/sh\nexec sleep 60\n")
    argv = [str(machine.python), SUPERVISE, "--max-restarts=3", f"--run-dir={machine.run_dir}"]
    env = environment(machine.environment())
    job = subprocess.Popen(argv, env=env, cwd=machine.root, stderr=subprocess.PIPE, text=True)
    time.sleep(2)
    job.send_signal(signal.SIGINT)
    assert job.wait(timeout=20) == 75
    assert job.stderr.read() == "stopped before the first step\n"
    job.stderr.close()


def test_horovodrun_ends_with_the_supervisor(machine: Machine) -> None:
    machine.horovodrun('#!/bin/sh\necho $$ >"$TMPDIR/pid"\nexec sleep 60\n')
    argv = [str(machine.python), SUPERVISE, f"--run-dir={machine.run_dir}"]
    job = subprocess.Popen(argv, env=environment(machine.environment(TMPDIR=str(machine.root))), cwd=machine.root)
    deadline = time.monotonic() + 20
    while not (machine.root / "pid").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    time.sleep(0.2)
    child = int((machine.root / "pid").read_text())
    job.kill()
    job.wait(timeout=10)
    time.sleep(1)
    state = Path(f"/proc/{child}/stat")
    assert not state.exists() or state.read_text().split()[2] == "Z"


def test_nothing_outlives_a_supervisor_that_is_killed(machine: Machine) -> None:
    """Neither does a helper in a session of its own whose launcher ends at the first signal, as that of mpirun."""
    machine.horovodrun(
        '#!/bin/sh\nsetsid sh -c \'trap "" HUP INT; sleep 600 & echo $$ $! >"$TMPDIR/pids"; wait\' &\n'
        "echo started\nexec sleep 600\n"
    )
    argv = [str(machine.python), SUPERVISE, f"--run-dir={machine.run_dir}"]

    def is_started() -> bool:
        return (machine.root / "pids").exists() and len((machine.root / "pids").read_text().split()) == 2

    done = run(
        argv, cwd=machine.root, env=machine.environment(TMPDIR=str(machine.root)), interrupt_when=is_started,
        interrupt=lambda pid: os.kill(pid, signal.SIGKILL), timeout=40,
    )  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert done.stdout == "started\n"


def test_launcher_that_ignores_signals_is_killed(machine: Machine) -> None:
    machine.horovodrun("#!/bin/sh\ntrap '' INT TERM\necho started\nwhile :; do sleep 1; done\n")
    argv = [str(machine.python), SUPERVISE, f"--run-dir={machine.run_dir}"]
    env = environment(machine.environment())
    job = subprocess.Popen(argv, env=env, cwd=machine.root, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert job.stdout.readline() == "started\n"
    job.send_signal(signal.SIGINT)
    _, stderr = job.communicate(timeout=30)
    assert (job.returncode, stderr) == (75, "stopped before the first step\n")


def test_single_worker_is_started_without_horovodrun(machine: Machine, song_file: Path) -> None:
    """It is restarted and stopped as the workers of horovodrun are."""
    machine.horovodrun("#!/bin/sh\necho horovodrun was called >&2\nexit 1\n")
    status = machine.run_dir / "status.json"

    def running(pid: int = 0) -> int:
        """Return the worker's process id once it trains; 0 before, or while it is `pid`."""
        has_begun = (machine.run_dir / "run.json").exists()  # which names the ranks; the status is written before
        now = json.loads(status.read_text()) if has_begun and status.exists() else {}
        return now["pid"] if now.get("state") == "running" and now["pid"] != pid else 0

    def kill_and_stop(supervisor: int) -> None:
        first = running()
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: running(first) != 0, "the restarted worker", 30)
        os.kill(supervisor, signal.SIGTERM)

    argv = [str(machine.python), SUPERVISE, "-n", "1", "--max-restarts=1", *TINY, "--epochs=1000000"]
    done = run(
        [*argv, "--log-every=1000000", f"--corpus={song_file}", f"--run-dir={machine.run_dir}"], cwd=machine.root,
        env=machine.environment(OMP_NUM_THREADS="1"), interrupt_when=lambda: running() != 0,
        interrupt=kill_and_stop, timeout=90,
    )  # fmt: skip
    assert done.returncode == 75, done.stderr
    restart, stop = done.stderr.splitlines()
    assert re.match(r"error: rank 0 on \S+ exited without reporting an error .*; restarting from step 0 ", restart)
    assert re.match(r"stopped by SIGTERM; resume from step \d+ with: \S*launch/local.sh -n 1 --gloo --resume ", stop)


def test_refused_flag_of_a_single_worker_is_one_line(machine: Machine) -> None:
    result = machine.start("-n", "1", "--corpus=absent.txt", "--max-restarts=2")
    assert (result.returncode, result.stdout) == (66, "")
    assert result.stderr == "error: --corpus absent.txt: no such file\n"


def test_job_with_closed_output_is_not_restarted(machine: Machine) -> None:
    plan = [(k, "talks") for k in range(1, 9)]
    machine.horovodrun(ATTEMPT.format(python=machine.python, root=str(ROOT), run_dir=str(machine.run_dir), plan=plan))
    words = " ".join([str(machine.python), SUPERVISE, "--max-restarts=3", f"--run-dir={machine.run_dir}"])
    done = run(["bash", "-c", f"{words} | head -n 2"], cwd=machine.root, env=machine.environment(), timeout=40)
    assert done.stdout == "a line\na line\n"
    assert len((machine.root / "attempts").read_text().splitlines()) == 1


def test_job_with_closed_output_ends(machine: Machine) -> None:
    machine.horovodrun("#!/bin/sh\nwhile echo line; do sleep 0.1; done\n")
    words = " ".join([str(machine.python), SUPERVISE, f"--run-dir={machine.run_dir}"])
    done = run(["bash", "-c", f"{words} | head -n 2"], cwd=machine.root, env=machine.environment(), timeout=40)
    assert done.stdout == "line\nline\n"
