"""Variables that are set for another Python are left out, and a program that they have reached starts again."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.cluster.isolation import IGNORED, isolated
from tests.support.programs import ROOT

FOREIGN = {"PYTHONINSPECT": "1", "PYTHONDEVMODE": "1", "PYTHONPATH": "/opt/other/lib", "PYTHONIOENCODING": "latin-1"}


def test_variables_that_change_nothing_are_kept() -> None:
    environ = {
        "PYTHONDONTWRITEBYTECODE": "1", "PYTHONUNBUFFERED": "1", "PYTHON_VERSION": "3.11.7", "PYTHON": "python3",
        "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "", "HOME": "/root",
    }  # fmt: skip
    assert isolated(environ) == environ


def test_variables_of_another_project_are_left_out_and_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # which an empty entry stands for
    (tmp_path / "lstm_dist").mkdir()
    path = os.pathsep.join([str(tmp_path), str(ROOT / "tests" / ".."), "", "/opt/other"])
    left = isolated({"PYTHONVERBOSE": "2", "PYTHONPATH": path, "HOME": "/root"})
    assert left == {
        "PYTHONPATH": str(ROOT / "tests" / ".."), "HOME": "/root", IGNORED: "PYTHONPATH PYTHONVERBOSE",
    }  # fmt: skip
    assert isolated(left) == left


def test_workers_do_not_get_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in FOREIGN.items():
        monkeypatch.setenv(name, value)
    environ = Workers(2).environment()
    assert {name: environ.get(name) for name in FOREIGN} == {**dict.fromkeys(FOREIGN), "PYTHONPATH": str(ROOT)}
    assert environ["PYTHONUTF8"] == "1"


@pytest.mark.slow
def test_program_starts_again_without_them_as_the_same_process(tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "pydantic.py").write_text("raise ImportError('of another project')")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\nfrom lstm_dist.cluster.isolation import isolate\nisolate()\n"
        "import pydantic, warnings\nwarnings.warn('x', DeprecationWarning)\n"
        "flags = sys.flags.optimize, sys.flags.bytes_warning\n"
        "print(os.getpid(), sys.argv[1:], *flags, sys.stdout.encoding, os.environ['LSTM_DIST_IGNORED'])\n"
    )
    path = os.pathsep.join([str(other), str(ROOT)])
    foreign = {"PYTHONOPTIMIZE": "2", "PYTHONWARNINGS": "error", "PYTHONIOENCODING": "ascii", "PYTHONPATH": path}
    process = subprocess.Popen(
        [sys.executable, "-b", str(program), "分开", ""], env={**os.environ, **foreign, "PYTHONUTF8": "1"},
        stdout=subprocess.PIPE, encoding="utf-8",
    )  # fmt: skip
    printed = process.communicate(timeout=60)[0]
    assert printed == f"{process.pid} ['分开', ''] 0 1 utf-8 {' '.join(sorted(foreign))}\n"
