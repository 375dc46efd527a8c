"""The command that resumes a run can be pasted into the shell that started the run."""

import sys
from pathlib import Path
from typing import Dict, List

import pytest

from tests.support.programs import ROOT, run

PROGRAM = """
import sys
from pathlib import Path
from lstm_dist.run.resume_command import resume_command
print(sys.argv[1:] if "--resume" in sys.argv else resume_command(Path(sys.argv[1])))
"""
UNDER_MPIRUN = {"OMPI_COMM_WORLD_RANK": "0", "OMPI_COMM_WORLD_SIZE": "2"}


def printed(folder: Path, command: List[str], **env: str) -> str:
    done = run(command, cwd=folder, env={"PYTHONPATH": str(ROOT), **env})
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.rstrip("\n")


@pytest.mark.parametrize(
    ("launcher", "env"), [([], {}), (["timeout", "60"], {}), (["timeout", "60"], UNDER_MPIRUN)], ids=str
)
def test_command_is_that_of_the_launcher_and_can_be_pasted(tmp_path: Path, launcher: List[str], env: Dict[str, str]):
    (tmp_path / "my train.py").write_text(PROGRAM)
    for run_dir in ("runs/a", "it's $HOME", "-x", "../分"):
        hint = printed(tmp_path, [*launcher, "python", "my train.py", run_dir, "--epochs", "3"], **env)
        assert hint.startswith(" ".join([*launcher, sys.executable, "'my train.py'", "--resume", "--run-dir "]))
        again = printed(tmp_path, ["bash", "-c", hint])
        assert again == str(["--resume", "--run-dir", "./-x" if run_dir == "-x" else run_dir])


@pytest.mark.parametrize("env", [UNDER_MPIRUN, {"LSTM_DIST_ATTEMPT": "7"}], ids=["remote launcher", "supervised"])
def test_only_the_flags_are_given_if_the_launcher_is_not_known(tmp_path: Path, env: Dict[str, str]):
    (tmp_path / "train.py").write_text(PROGRAM)
    assert printed(tmp_path, ["python", "train.py", "a b"], **env) == "--resume --run-dir 'a b'"
