"""Run tests/parallel with one, two and three real ranks, over both controllers."""

import re

import pytest

from tests.support import launchers
from tests.support.programs import ROOT, run


@pytest.mark.slow
@pytest.mark.parametrize("ranks", [1, 2, 3])
@pytest.mark.parametrize("launcher", ["gloo", "mpi"])
def test_parallel_suite_passes_on_every_rank(launcher, ranks):
    start = launchers.horovodrun("gloo", ranks) if launcher == "gloo" else launchers.mpirun(ranks)
    suite = ["python", "-m", "pytest", "--color=no", "-q", "-p", "no:cacheprovider", "tests/parallel"]
    done = run([*start, *suite], timeout=240, cwd=ROOT, env=launchers.ENVIRONMENT)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    passed = re.findall(r"(\d+) passed", done.stdout)
    assert len(passed) == ranks, "every rank has to report its result"
    assert len(set(passed)) == 1
    assert "skipped" not in done.stdout
