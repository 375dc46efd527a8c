"""The facts of a process and of a rank for the run card, without environment variables."""

import json
import os
import re

import pytest

from lstm_dist.cluster import provenance


def test_run_card_describes_the_run_without_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("MY_PASSWORD", "squeamish ossifrage")
    monkeypatch.setattr("sys.argv", ["jobs/train.py", "--prefix", "分 开"])
    card = {**provenance.describe_process(), **provenance.describe_rank("cpu(0)")}
    assert set(card) == {
        "started", "attempt", "command", "directory", "code", "git_commit", "git_uncommitted", "python", "versions",
        "slurm", "host", "device", "threads", "cores", "numa_nodes", "processor", "openblas", "gpu",
    }  # fmt: skip
    assert "ossifrage" not in json.dumps(card)
    assert card["command"].endswith(" jobs/train.py --prefix '分 开'")
    assert card["directory"] == os.getcwd()
    assert card["versions"]["mxnet"] == "1.9.1"
    assert card["versions"]["horovod"] == "0.28.1"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00", card["started"])
    monkeypatch.setenv("OMP_NUM_THREADS", "4,2")
    assert provenance.describe_rank("cpu(0)")["threads"] == 4
    assert provenance.describe_rank("cpu(0)", cores=frozenset({3, 1}))["cores"] == [1, 3]


def test_only_the_first_rank_asks_git(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(provenance, "git_facts", lambda: {"git_commit": "a", "git_uncommitted": None})
    for rank in "01":
        monkeypatch.setenv("OMPI_COMM_WORLD_RANK", rank)
        monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
        assert ("git_commit" in provenance.describe_process()) == (rank == "0")
