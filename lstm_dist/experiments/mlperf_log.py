"""The course of a run as a log of MLPerf: the lines that the package mlperf-logging writes and reads.

https://github.com/mlcommons/logging
"""

import json
import math
from datetime import datetime
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.report.formatters import counted
from lstm_dist.experiments.subprocess_job import read_json_lines
from lstm_dist.run import timeline
from lstm_dist.run.goodput import FINISHED, History
from lstm_dist.run.metrics_file import FILE as METRICS
from lstm_dist.run.metrics_file import is_epoch
from lstm_dist.run.phase_clock import STARTING
from lstm_dist.run.run_card import read_card
from lstm_dist.run.status import read_status

_POINT, _START, _END = "POINT_IN_TIME", "INTERVAL_START", "INTERVAL_END"  # types of events


def mlperf_log(run_dir: Path) -> str:
    """Return the log of a run: its settings, its start, every line of metrics.jsonl, and its end.

    The times of a resumed run are those of training; the time between its attempts is left out.

    Raises:
        UserError: if files of the run are missing or invalid.
    """
    try:
        config = json.loads((run_dir / "config.json").read_bytes())
        return "".join(_lines(run_dir, config, read_json_lines(run_dir / METRICS)))
    except (OSError, ValueError, KeyError, TypeError):
        reason = "config.json, run.json or metrics.jsonl is missing or damaged: leave mlperf out"
        raise UserError(f"--export mlperf: {run_dir}: {reason}", ExitStatus.NO_INPUT) from None


def _lines(run_dir: Path, config: Dict[str, Any], reports: List[Dict[str, Any]]) -> Iterator[str]:
    card = read_card(run_dir)
    began, trained = _times(run_dir, card)
    settings = {
        "submission_benchmark": "lstm_dist",
        "submission_platform": _platform(card),
        "seed": config["seed"],
        "global_batch_size": config["global_batch_size"],
        "max_sequence_length": config["seq_len"],
        "gradient_accumulation_steps": 1,
        "opt_name": "sgd",
        "opt_base_learning_rate": config["learning_rate"],
        "opt_gradient_clip_norm": config["max_norm"],
    }
    yield from (_line(began, _POINT, key, value) for key, value in settings.items())
    yield _line(began, _START, "init_start", None)
    yield _line(trained, _END, "init_stop", None)
    yield _line(trained, _START, "run_start", None)
    now, opened, evaluated = trained, 0, 0
    for report in reports:
        number, start, now = math.ceil(report["epoch"]), now, trained + report["seconds"]
        if number != opened:
            yield _line(start, _START, "epoch_start", None, epoch_num=number)
        stats = {"throughput": report["chars_per_sec"], "train_loss": report["loss"]}
        yield _line(now, _POINT, "tracked_stats", stats, step=report["step"], epoch_num=number, unit="characters/s")
        valid = report.get("valid_perplexity")
        if valid is not None and report["step"] != evaluated:  # the lines of an epoch and of a report may both have it
            yield _line(now, _POINT, "eval_accuracy", valid, epoch_num=number, quantity="perplexity")
            evaluated = report["step"]
        if is_epoch(report):
            yield _line(now, _END, "epoch_stop", None, epoch_num=number)
        opened = number
    status = "success" if read_status(run_dir).get("state") == FINISHED else "aborted"
    yield _line(now, _END, "run_stop", None, status=status)


def _times(run_dir: Path, card: Dict[str, Any]) -> Tuple[float, float]:
    """Return when the run began and when its training began, in seconds since 1970; the same one for old runs."""
    attempts = History(timeline.read(run_dir)).attempts
    if attempts:
        return attempts[0].began, attempts[0].began + attempts[0].seconds[STARTING]
    started = datetime.fromisoformat(card["started"]).timestamp()
    return started, started


def _platform(card: Dict[str, Any]) -> str:
    hosts = len({rank["host"] for rank in card["ranks"]})
    chips = ", ".join(
        dict.fromkeys(str(rank.get("gpu") or rank["processor"]).split(" at ")[0] for rank in card["ranks"])
    )
    return f"{counted(card['workers'], 'worker')} on {counted(hosts, 'host')}: {chips}"


def _line(seconds: float, event: str, key: str, value: Any, **metadata: Any) -> str:
    """Return one line; every line of mlperf-logging also names the source line that has logged it."""
    where = {"file": "metrics.jsonl", "lineno": 0}
    record = {"namespace": "", "time_ms": round(1000 * seconds), "event_type": event, "key": key, "value": value}
    return f":::MLLOG {json.dumps({**record, 'metadata': {**where, **metadata}})}\n"
