"""The launchers use a working environment as it is, and launch/setup.sh replaces it only by another that works."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import List

import pytest

from tests.support.fake_machine import Machine, compiled, extras, one_line
from tests.support.programs import environment

pytestmark = pytest.mark.slow

MPICXX = "#!/bin/sh\ncase $1 in -v) echo MPICH 4.1 ;; --*) exit 1 ;; esac\n"
TOOLS_ADDED = "-m pip install --no-build-isolation -e {}[dev]"


@pytest.fixture
def ready(machine: Machine) -> Machine:
    """Return a machine with an environment."""
    assert machine.run().returncode == 0
    machine.calls()
    return machine


def environment_of(machine: Machine) -> Path:
    return (machine.repo / ".venv").resolve()


def change_setup_py(machine: Machine) -> None:
    with (machine.repo / "setup.py").open("a") as file:
        file.write("# changed\n")


def report_starts(venv: Path) -> None:
    """Let the fake Python of an environment print its path, variables and arguments when it starts a program."""
    python = venv / "bin" / "python"
    report = '*supervise.py*|*"-m pytest"*) echo "$0"; env | grep ^PYTHON; printf "%s\\n" "$@" ;;\n'
    python.write_text(python.read_text().replace('case "$*" in\n', f'case "$*" in\n{report}', 1))


# ---- the launchers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mpicxx", "changed"),
    [(MPICXX, False), ("#!/bin/sh\nexit 1\n", False), ("#!/bin/sh\nsleep 1000\n", True)],
    ids=["another MPI", "a broken MPI", "a compiler that hangs, and a changed setup.py"],
)
@pytest.mark.parametrize("launcher", ["local", "cluster", "test"])
def test_launchers_use_the_environment_as_it_is(ready: Machine, launcher: str, mpicxx: str, changed: bool) -> None:
    reasons = f"its MPI is not that of {ready.tool('mpicxx', mpicxx)}"
    if changed:
        change_setup_py(ready)
        reasons += " and setup.py has changed"
    ready.python("python3.11", "3.11.9")
    before = ready.contents()
    done = ready.start(launcher, "-H", "localhost:1", PYTHON="python3.11")
    note = f"note: .venv is used as it is, although {reasons}: launch/setup.sh updates it\n"
    assert (done.returncode, done.stderr) == (0, note)
    assert ready.calls() == []
    assert ready.contents() == before


def test_launcher_says_nothing_if_nothing_has_changed(ready: Machine) -> None:
    done = ready.start("local")
    assert (done.returncode, done.stderr) == (0, "")


def test_mpi_of_another_python_environment_is_not_that_of_the_machine(machine: Machine, tmp_path: Path) -> None:
    other = tmp_path / "other"
    (other / "bin").mkdir(parents=True)
    (other / "pyvenv.cfg").touch()
    machine.tool("mpicxx", MPICXX).rename(other / "bin/mpicxx")
    assert "MPI from PyPI" in machine.run(PATH=f"{other}/bin:{machine.bin}").stdout
    assert machine.start("local", PATH=f"{other}/bin:{machine.bin}").stderr == ""


def test_first_launch_sets_up_and_continues_after_an_interruption(machine: Machine) -> None:
    assert machine.start("local", FAKE_FAIL="[horovod]").returncode == 1
    machine.calls()
    done = machine.start("local")
    assert done.returncode == 0, done.stderr
    assert extras(machine.calls()) == ["horovod"]
    assert environment_of(machine) == machine.repo / ".venv.d/1"


def test_missing_tools_are_added_and_nothing_else_changes(ready: Machine) -> None:
    ready.tool("mpicxx", MPICXX)
    done = ready.start("test", FAKE_LACKS="xdist")
    assert done.returncode == 0, done.stderr
    assert ready.calls() == [TOOLS_ADDED.format(ready.repo)]
    assert (ready.repo / ".venv/.setup/ready.stamp").exists()


def test_link_to_the_environment_of_another_clone_is_used_and_never_changed(ready: Machine, tmp_path: Path) -> None:
    theirs = environment_of(ready)
    clone = tmp_path / "clone"
    shutil.copytree(ready.repo, clone, ignore=shutil.ignore_patterns(".venv"))
    (clone / ".venv").symlink_to(theirs)
    before = ready.contents()
    ready.repo = clone
    assert ready.start("local").returncode == 0
    one_line(ready.start("test", FAKE_LACKS="hypothesis"), "is a link to", str(theirs))
    change_setup_py(ready)
    assert "although setup.py has changed" in ready.start("local").stderr
    one_line(ready.run(), "is a link to", str(theirs), "run launch/setup.sh where it was made")
    assert ready.calls() == []
    ready.repo = tmp_path / "repo"
    assert ready.contents() == before


def test_environment_that_does_not_work_is_reported_and_not_rebuilt_by_a_launcher(ready: Machine) -> None:
    one_line(ready.start("local", FAKE_LACKS="mxnet"), "does not work", "launch/setup.sh builds a new one")
    ready.repo = ready.repo.rename(ready.repo.with_name("moved"))
    one_line(ready.start("local"), "was moved", "launch/setup.sh builds a new one")
    assert ready.calls() == []
    assert ready.run().returncode == 0
    assert ready.start("local").returncode == 0


@pytest.mark.parametrize("launcher", ["local", "cluster", "test"])
def test_launchers_work_through_a_link_and_leave_out_variables_of_other_pythons(
    ready: Machine, tmp_path: Path, launcher: str
) -> None:
    report_starts(environment_of(ready))
    (tmp_path / "link").symlink_to(ready.repo / "launch" / f"{launcher}.sh")
    foreign = dict.fromkeys(("PYTHONHOME", "PYTHONPATH", "PYTHONOPTIMIZE"), "/opt/other")
    foreign["CDPATH"] = str(tmp_path)
    env = environment(ready.variables(**foreign))
    command = [str(tmp_path / "link"), "-H", "localhost:1"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True)
    assert (done.stdout.splitlines()[1], done.stderr) == (f"PYTHONPATH={ready.repo}", "")
    assert "-H" in done.stdout.splitlines()[2:]
    relative = subprocess.run(
        [f"launch/{launcher}.sh", "-H", "localhost:1"], cwd=ready.repo, env=env, capture_output=True, text=True,
        timeout=60, check=True,
    )  # fmt: skip
    assert relative.stdout == done.stdout


# ---- launch/setup.sh -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["[cpu]", "[mpi4py]", "[horovod]", "[dev]", "horovodrun --disable-cache --gloo"])
def test_environment_works_until_its_replacement_does(machine: Machine, broken: str) -> None:
    assert machine.run("--dev").returncode == 0
    before = machine.contents()
    machine.tool("mpicxx", MPICXX)
    failed = machine.run(FAKE_FAIL=broken)
    assert failed.returncode == 1
    assert f"{machine.repo}/.venv is unchanged" in failed.stderr.splitlines()[-1]
    after = machine.contents()
    above = (machine.repo, machine.repo / ".venv.d")
    assert {path: after[path] for path in before if path not in above} == {
        path: state for path, state in before.items() if path not in above
    }
    machine.calls()
    assert machine.start("local").returncode == 0
    assert machine.calls() == []
    done = machine.run()
    assert done.returncode == 0, done.stderr
    assert "venv 3.11.4" not in machine.calls()  # it continued
    assert environment_of(machine) == machine.repo / ".venv.d/2"
    assert (machine.repo / ".venv/.setup/dev.stamp").exists()
    assert "is ready" in machine.run("--dev").stdout
    assert machine.start("local").stderr == ""
    assert machine.calls() == []


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_interrupted_replacement_leaves_the_environment_and_continues(ready: Machine, number: int) -> None:
    old = environment_of(ready)
    command = [str(ready.repo / "launch/setup.sh"), "--python", str(ready.python("mine", "3.9.1"))]
    env = environment(ready.variables(FAKE_SLEEP="0.5"))
    setup = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 30
    while not any("[cpu]" in line for line in ready.calls_file.read_text().splitlines()):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    os.killpg(setup.pid, number)
    assert setup.wait(timeout=30) != 0
    ready.calls()
    assert environment_of(ready) == old
    assert ready.start("local").returncode == 0
    assert ready.calls() == []
    assert ready.run("--python", "mine").returncode == 0
    calls = ready.calls()
    assert "venv 3.9.1" not in calls
    assert compiled(calls)


def test_replaced_environment_stays_for_its_jobs_until_the_next_replacement(ready: Machine) -> None:
    folders = [ready.repo / ".venv.d" / str(number) for number in (1, 2, 3)]
    marks: List[bytes] = []
    for version in ("3.10.1", "3.9.1"):
        report_starts(environment_of(ready))
        assert ready.start("local").stdout.splitlines()[0] == f"{environment_of(ready)}/bin/python"
        marks.append((ready.repo / ".venv/bin/python").read_bytes())
        done = ready.run("--python", str(ready.python("mine", version)))
        assert done.returncode == 0, done.stderr
        assert str(folders[len(marks) - 1]) in done.stdout
        assert (folders[len(marks) - 1] / "bin/python").read_bytes() == marks[-1]
    assert environment_of(ready) == folders[2]
    assert sorted((ready.repo / ".venv.d").iterdir()) == folders[1:]


def test_folder_of_an_earlier_version_is_replaced_by_a_link_also_after_an_interruption(machine: Machine) -> None:
    (machine.repo / ".venv").mkdir()
    assert machine.run().returncode == 0
    assert environment_of(machine) == machine.repo / ".venv"
    mark = (machine.repo / ".venv/bin/python").read_bytes()
    done = machine.run("--python", str(machine.python("mine", "3.10.1")))
    assert done.returncode == 0, done.stderr
    assert environment_of(machine) == machine.repo / ".venv.d/1"
    assert (machine.repo / ".venv.d/0/bin/python").read_bytes() == mark
    machine.calls()
    (machine.repo / ".venv").rename(machine.repo / ".venv.d/link")  # between its two renames
    assert machine.start("local").returncode == 0
    assert machine.calls() == []
    assert environment_of(machine) == machine.repo / ".venv.d/1"


def test_environment_whose_link_was_removed_stays_for_its_jobs(ready: Machine) -> None:
    (ready.repo / ".venv").unlink()
    assert ready.run().returncode == 0
    assert environment_of(ready) == ready.repo / ".venv.d/2"
    assert (ready.repo / ".venv.d/1/.setup/ready.stamp").exists()


def test_requirements_that_changed_are_installed_aside(ready: Machine) -> None:
    old = environment_of(ready)
    change_setup_py(ready)
    assert ready.run(FAKE_UNMET="1").returncode == 0
    assert compiled(ready.calls())
    assert environment_of(ready) != old


def test_settings_of_pip_for_other_folders_are_left_out(machine: Machine, tmp_path: Path) -> None:
    python, pip = machine.bin / "python3.11", '    "-m pip "*)\n'
    python.write_text(python.read_text().replace(pip, f'{pip}        env | grep ^PIP_T >>"$FAKE_CALLS"\n', 1))
    assert machine.run(PIP_TARGET=str(tmp_path / "target")).returncode == 0
    assert not [call for call in machine.calls() if call.startswith("PIP_TARGET")]
