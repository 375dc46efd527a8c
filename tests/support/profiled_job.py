"""Training jobs whose timed steps are known."""

from typing import Any, Dict, List

import numpy as np

from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.throughput import JobGroup
from tests.support.scaling_results import point

Seconds = np.ndarray

OWN = 1e-3  # seconds of data and update


def profiled_job(useful: Seconds, wire: float = 0.0, streams: int = 0, repeat: int = 1) -> TrainRow:
    """Return a job whose workers work for these seconds, of shape (steps, workers), and wait for the slowest.

    Every 25th step is profiled. A worker has 8 streams unless `streams`, those of the job, says otherwise.
    """
    workers = useful.shape[1]
    times: List[Dict[str, Any]] = [
        {
            "step": 25 * step, "rank": rank, "host": f"node{rank}", "data": 0.4 * OWN, "compute": seconds - OWN,
            "wait": max(of_step) - seconds, "wire": wire, "update": 0.6 * OWN,
        }
        for step, of_step in enumerate(useful.tolist(), 1)
        for rank, seconds in enumerate(of_step)
    ]  # fmt: skip
    fields = point(f"weak-n{workers:03d}-r{repeat}", "weak", workers, streams or 8 * workers, repeat, times=times)
    return TrainRow.model_validate({**fields, "epochs": [{"chars_per_sec": 1.0, "steps": 25 * len(useful)}]})


def group_of(*rows: TrainRow) -> JobGroup:
    """Return the group of repetitions of one job."""
    return JobGroup("weak", rows[0].workers, rows[0].streams, False, list(rows))
