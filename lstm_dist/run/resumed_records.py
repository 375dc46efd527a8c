"""Which lines of its files a resumed run keeps: those up to its checkpoint; it writes the later ones again."""

import json
from pathlib import Path
from typing import Any, Callable, Dict

from lstm_dist.run.metrics_file import FILE as METRICS
from lstm_dist.run.metrics_file import is_epoch
from lstm_dist.run.step_times import FILE as TIMES

SAMPLES = "samples.jsonl"


def discard_later_records(run_dir: Path, epochs: int, step: int, reported_step: int) -> None:
    """Truncate the files after the first `epochs` epochs, the times of `step`, and the report of `reported_step`."""

    def is_of_epochs(line: Dict[str, Any]) -> bool:
        return int(line["epoch"]) <= epochs

    def is_of_metrics(line: Dict[str, Any]) -> bool:
        return is_of_epochs(line) if is_epoch(line) else int(line["step"]) <= reported_step

    _keep_lines(run_dir / METRICS, is_of_metrics)
    _keep_lines(run_dir / SAMPLES, is_of_epochs)
    if (run_dir / TIMES).exists():
        _keep_lines(run_dir / TIMES, lambda line: int(line["step"]) <= step)


def _keep_lines(path: Path, is_kept: Callable[[Dict[str, Any]], bool]) -> None:
    """Truncate a file of JSON lines before the first one not to keep; the last may be invalid after a crash."""
    kept = 0
    with path.open("r+b") as file:
        for line in file:
            try:
                if not line.endswith(b"\n") or not is_kept(json.loads(line)):
                    break
            except (ValueError, TypeError, KeyError):
                break
            kept += len(line)
        file.truncate(kept)
