"""The row of a trial keeps the results that its job wrote, also if its training has diverged."""

import json
from pathlib import Path
from typing import Any

import pytest

from lstm_dist.cluster.horovodrun import Workers
from lstm_dist.experiments.launchers import Horovodrun
from lstm_dist.experiments.subprocess_job import JobOutcome
from lstm_dist.sweep import runner
from lstm_dist.sweep.grid import parse_grid, plan_trials
from lstm_dist.sweep.runner import SweepSettings, Trials


@pytest.mark.parametrize(("status", "state"), [(0, "finished"), (80, "finished"), (76, "failed"), (79, "failed")])
def test_trial_that_has_diverged_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, state: str):
    epochs = [{"epoch": 1, "perplexity": 50.0, "valid_perplexity": 60.0}, {"epoch": 2, "perplexity": 9e9}]
    epochs[1]["valid_perplexity"] = 8e9

    def job(_: Any, folder: Path, __: Any) -> JobOutcome:
        (folder / "run").mkdir()
        (folder / "run" / "metrics.jsonl").write_text("\n".join(map(json.dumps, epochs)))
        return JobOutcome(status, "error: reason" if status else "", 1.0)

    monkeypatch.setattr(runner, "execute", job)
    trials = Trials(
        plan_trials(parse_grid(["seq-len=9"]), 1), SweepSettings([], 2, 1), tmp_path, Horovodrun(Workers(1))
    )
    row = trials.run("seq-len-9-s0")
    assert row.state == state
    assert [epoch.perplexity for epoch in row.epochs] == ([50.0, 9e9] if state == "finished" else [])
    assert row.message == ("error: reason" if status else "")
