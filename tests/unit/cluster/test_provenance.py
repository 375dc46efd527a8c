"""The contents of the run card, without environment variables, and the digest of the code."""

import json
import os
import re
from pathlib import Path

import pytest

from lstm_dist.cluster import provenance


def test_run_card_describes_the_run_without_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_PASSWORD", "squeamish ossifrage")
    monkeypatch.setattr("sys.argv", ["jobs/train.py", "--prefix", "分 开"])
    card = {**provenance.describe_process(), **provenance.describe_rank("cpu(0)")}
    assert set(card) == {
        "started", "command", "directory", "git_commit", "python", "versions", "host", "device", "threads", "cores",
        "processor", "openblas", "gpu",
    }  # fmt: skip
    assert "ossifrage" not in json.dumps(card)
    assert card["command"].endswith(" jobs/train.py --prefix '分 开'")
    assert card["directory"] == os.getcwd()
    assert card["versions"]["mxnet"] == "1.9.1"
    assert card["versions"]["horovod"] == "0.28.1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", card["started"])
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert provenance.describe_rank("cpu(0)")["threads"] == 4


@pytest.mark.parametrize(
    ("changed", "differs"),
    [
        ("lstm_dist/model/lstm.py", True),
        ("lstm_dist/rng.py", True),
        ("lstm_dist/programs/train.py", True),
        ("jobs/train.py", True),
        ("lstm_dist/programs/report.py", False),
        ("lstm_dist/scaling/tables/cells.py", False),
        ("lstm_dist/bench/plot.py", False),
    ],
)
def test_digest_covers_the_code_that_determines_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: str, differs: bool
):
    monkeypatch.setattr(provenance, "__file__", str(tmp_path / "lstm_dist/cluster/provenance.py"))
    path = tmp_path / changed
    path.parent.mkdir(parents=True)
    path.write_text("a = 1")
    before = provenance.code_digest(tmp_path / "jobs/train.py")
    path.write_text("a = 2")
    assert (provenance.code_digest(tmp_path / "jobs/train.py") != before) == differs
