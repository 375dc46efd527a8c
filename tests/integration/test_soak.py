"""The quick experiments of tests/soak.py, with a small share of their trials."""

import pytest

from tests.support.programs import ROOT, run


@pytest.mark.slow
def test_small_share_of_quick_experiments_has_no_wrong_outcome():
    experiments = [f"--only={name}" for name in ("disk", "damage", "configs")]
    done = run(["python", "-m", "tests.soak", *experiments, "--share=0.02"], cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 6
    assert [line for line in lines if line.startswith("WRONG")] == []
    assert [line.startswith("  control, ") for line in lines] == [False, True] * 3


@pytest.mark.slow
def test_wrong_outcome_is_reported_and_sets_the_exit_status(monkeypatch, capsys):
    from lstm_dist.run import checkpoint
    from tests import soak

    monkeypatch.setattr(soak, "EXPERIMENTS", (soak.damage,))
    monkeypatch.setattr("sys.argv", ["soak", "--share=0.01"])
    monkeypatch.setattr(checkpoint, "_verify", lambda *_: None)
    assert soak.main() == 1
    assert capsys.readouterr().out.startswith("WRONG: 100 damaged checkpoints: ")
