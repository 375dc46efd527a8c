"""Comparisons of the results of two runs."""

import json
from pathlib import Path
from typing import Dict, List

import numpy as np

from lstm_dist.run.checkpoint import load_checkpoint
from tests.support.programs import newest


def rows(run_dir: Path) -> List[Dict]:
    """Return the rows of metrics.jsonl, without times and to 12 digits (sums of float32), and of samples.jsonl."""
    metrics = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    for row in metrics:
        del row["seconds"], row["chars_per_sec"]
        row.update({k: float(f"{v:.12g}") for k, v in row.items() if v is not None})
    return [*metrics, *map(json.loads, (run_dir / "samples.jsonl").read_text().splitlines())]


def same_bits(ours: Path, theirs: Path) -> None:
    a, b = (load_checkpoint(newest(run_dir), "") for run_dir in (ours, theirs))
    for name, value in a.parameters.items():
        np.testing.assert_array_equal(value, b.parameters[name], err_msg=name)


def same_trajectory(ours: Path, theirs: Path) -> None:
    """Check that runs of different numbers of workers differ only by the order of their sums."""
    a, b = (load_checkpoint(newest(run_dir), "").parameters for run_dir in (ours, theirs))
    for name, value in a.items():
        assert np.abs(value - b[name]).max() < 1e-4 * np.abs(value).max(), name
    assert [row.get("epoch") for row in rows(ours)] == [row.get("epoch") for row in rows(theirs)]


def under_way(run_dir):
    """Return whether a run has written two epochs."""
    metrics = run_dir / "metrics.jsonl"
    return metrics.exists() and metrics.read_text().count("\n") > 1
