"""Describe the measurement: machine, launcher, model, jobs, and what a worker sends."""

from typing import Dict, List, Sequence

from lstm_dist.experiments.report.formatters import counted, listed, number, size
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import TrainRow


def facts(findings: Findings) -> "List[tuple[str, str]]":
    """Return the facts about the measurement."""
    experiment, trained, allreduced = findings.rows.experiment, findings.rows.train_rows, findings.rows.allreduce_rows
    jobs, unfinished = [*trained, *allreduced], findings.rows.unfinished
    failed = sum(job.state == "failed" for job in jobs)
    counts = (
        f"{counted(len(trained), 'training job')} and {counted(len(allreduced), 'network job')}: "
        f"{len(jobs) - failed} finished, {failed} failed"
    )
    layers = f"{experiment.layers} layers of " if experiment.layers > 1 else ""
    described = {
        "machine": _distinct([job.machine for job in jobs]),
        "launcher": experiment.launcher,
        **_varied(findings),
        "model": f"LSTM of {layers}{number(experiment.hidden_size)} hidden units, {number(experiment.vocab_size)} "
        f"characters, {number(experiment.parameters)} parameters; windows of {experiment.seq_len} characters",
        "jobs": counts + (f"; without a result: {listed(unfinished)}" if unfinished else ""),
        "a timed job": f"{counted(experiment.epochs, 'epoch')} of {counted(experiment.steps, 'step')}, of which "
        f"{counted(experiment.warm_up, 'epoch')} of warm-up; {counted(experiment.streams, 'stream')} per worker (weak) "
        "or in all (strong)",
    }
    if trained:
        largest = sorted(trained, key=lambda row: (row.mode != "perplexity", row.workers))[-1]
        devices = _distinct([device for row in trained for device in row.devices])
        hosts, cores = max(row.hosts for row in trained), max(row.cores for row in trained)
        described["workers on"] = f"{counted(hosts, 'host')} with {counted(cores, 'core')}; {devices}"
        described["communication"] = _communication(findings)
        described["command"] = f"{largest.command} (of {largest.id})"
    described["program"] = f"commit {_distinct([job.commit for job in jobs])}"
    return list(described.items())


def _varied(findings: Findings) -> Dict[str, str]:
    """Return the series by name, if there are several."""
    names = [series.series for series in findings.series]
    return {"series": "; ".join(names)} if len(names) > 1 else {}


def _communication(findings: Findings) -> str:
    """Describe the bytes that a worker sends in a step of the timed jobs."""
    sent, dense = [row.bytes for row in timed_jobs(findings)], findings.rows.experiment.bytes
    sizes = dict.fromkeys([size(min(sent)), size(max(sent))])
    text = f"{' to '.join(sizes)} per worker and step"
    return text if max(sent) >= dense else f"{text}; all parameters have {size(dense)}"


def timed_jobs(findings: Findings) -> List[TrainRow]:
    """Return the finished timed jobs, whose bytes are known best; all training jobs if there are none."""
    return findings.rows.finished(MODES) or findings.rows.train_rows


def _distinct(values: Sequence[str]) -> str:
    return listed([value for value in dict.fromkeys(values) if value] or ["unknown"])
