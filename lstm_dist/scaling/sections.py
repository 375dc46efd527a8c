"""Build the report's sections from tables, pictures and text, and state what was not measured."""

import shlex
from pathlib import Path
from typing import List, Sequence

from lstm_dist.experiments.report.document import Report, Section
from lstm_dist.experiments.report.formatters import capitalized, counted, listed, milliseconds, number, size
from lstm_dist.scaling import figures
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import TrainRow
from lstm_dist.scaling.summary import summary
from lstm_dist.scaling.tables.forecasts import comparison_table, forecast_table
from lstm_dist.scaling.tables.links import allreduce_table, links_table
from lstm_dist.scaling.tables.perplexity import perplexity_table
from lstm_dist.scaling.tables.step_times import parts_table, shares_table, slowest_table
from lstm_dist.scaling.tables.throughput import laws_table, throughput_table

_WORKERS = "--workers 1,2,4"


def report(findings: Findings, folder: Path) -> Report:
    """Build the report; `folder` is the experiment's, for the commands that would complete it."""
    out = f"--out {shlex.quote(str(folder))}"
    sections = [_throughput(findings, out), _step_times(findings, out), _network(findings, out)]
    sections += [_predictions(findings), _perplexity(findings, out)]
    warnings = [f"{text}: these results may not be comparable" for text in findings.rows.inconsistencies]
    return Report("Scaling report", summary(findings), warnings, _facts(findings), sections)


def _facts(findings: Findings) -> "List[tuple[str, str]]":
    """Return the facts about the measurement."""
    experiment, trained, allreduced = findings.rows.experiment, findings.rows.train_rows, findings.rows.allreduce_rows
    jobs, unfinished = [*trained, *allreduced], findings.rows.unfinished
    failed = sum(job.state == "failed" for job in jobs)
    counts = (
        f"{counted(len(trained), 'training job')} and {counted(len(allreduced), 'network job')}: "
        f"{len(jobs) - failed} finished, {failed} failed"
    )
    layers = f"{experiment.layers} layers of " if experiment.layers > 1 else ""
    facts = {
        "machine": _distinct([job.machine for job in jobs]),
        "launcher": experiment.launcher,
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
        facts["workers on"] = f"{counted(hosts, 'host')} with {counted(cores, 'core')}; {devices}"
        facts["communication"] = _communication(findings)
        facts["command"] = f"{largest.command} (of {largest.id})"
    facts["program"] = f"commit {_distinct([job.commit for job in jobs])}"
    return list(facts.items())


def _communication(findings: Findings) -> str:
    """Describe the bytes that a worker sends in a step of the timed jobs."""
    sent, dense = [row.bytes for row in _timed(findings)], findings.rows.experiment.bytes
    sizes = dict.fromkeys([size(min(sent)), size(max(sent))])
    text = f"{' to '.join(sizes)} per worker and step"
    return text if max(sent) >= dense else f"{text}; all parameters have {size(dense)}"


def _timed(findings: Findings) -> List[TrainRow]:
    """Return the finished timed jobs, whose bytes are known best; all training jobs if there are none."""
    return findings.rows.finished(MODES) or findings.rows.train_rows


def _distinct(values: Sequence[str]) -> str:
    return listed([value for value in dict.fromkeys(values) if value] or ["unknown"])


def _throughput(findings: Findings, out: str) -> Section:
    modes = findings.modes
    section = Section("scaling", "Throughput, speedup, efficiency", [])
    notes = [
        f"{capitalized(name)} scaling was not measured; run `jobs/scale.py --mode {name} {_WORKERS} {out}`."
        for name in ("weak", "strong")
        if name not in [mode.name for mode in modes]
    ]
    tables = [throughput_table(findings)]
    if not modes:
        return section._replace(paragraphs=notes, tables=tables if tables[0].rows else [])
    paragraphs = [
        "In weak scaling every worker has as many streams as a single worker; in strong scaling all workers share "
        "them. Speedup is relative to one worker of the same mode. Hollow markers are oversubscribed (more workers "
        "than cores or GPUs); the laws are not fitted to them. Bars are 95 % intervals, with an arrow where one leaves "
        "the picture; short dashes are the single jobs of a number of workers with fewer than three."
    ]
    pictures = [[figures.throughput_figure(modes), figures.efficiency_figure(modes)]]
    with_speedup = [mode for mode in modes if any(rate.speedup.value > 0 for rate in mode.throughputs)]
    pictures.append([figures.speedup_figure(mode) for mode in with_speedup])
    if any(mode.laws.amdahl for mode in modes):
        tables.append(laws_table(modes))
        notes.append(
            "Amdahl (1967): N / (1 + σ (N − 1)); USL, the universal scalability law (Gunther 2007): "
            "N / (1 + σ (N − 1) + κ N (N − 1)). A law with as many parameters as points fits them exactly, so that its "
            "residuals are meaningless."
        )
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _step_times(findings: Findings, out: str) -> Section:
    section = Section("times", "Time of a step", [])
    modes = [mode for mode in findings.modes if mode.breakdowns]
    if not modes:
        return section._replace(paragraphs=[f"No step was profiled; run `jobs/scale.py {_WORKERS} {out}`."])
    paragraphs = [
        "The parts of the profiled steps: data is cutting the window, compute is forward and backward pass, wait is "
        "waiting for the slowest worker, communication is the averaging allreduce, update is clipping and the SGD "
        "step. Hatched bars are oversubscribed."
    ]
    tables, notes = [], []
    if any(mode.loss_shares for mode in modes):
        tables.append(shares_table(modes))
        notes.append(
            "Useful compute is the compute of a single worker for as many streams; extra compute is the rest of the "
            "measured compute. Latency and bandwidth are the measured communication, divided in the ratio that the "
            "fitted link predicts."
        )
    if any(breakdown.slowest for mode in modes for breakdown in mode.breakdowns):
        tables.append(slowest_table(modes))
    tables.append(parts_table(modes))
    pictures = [[figures.step_times_figure(mode) for mode in modes]]
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _network(findings: Findings, out: str) -> Section:
    section = Section("network", "Allreduce alone", [])
    if not findings.rows.allreduce_rows:
        paragraph = f"The network was not measured; run `jobs/scale.py network {_WORKERS} {out}`."
        return section._replace(paragraphs=[paragraph])
    fits = findings.link_fits
    gradients = max((row.bytes for row in _timed(findings)), default=0)
    paragraphs = ["Allreduces of many sizes, without training: the median of the repetitions, and their quartiles."]
    tables = [links_table(fits)] if fits else []
    pictures = [figures.link_figures(fits, gradients)]
    pictures.append([figures.residuals_figure(fit, gradients) for fit in fits if fit.link])
    notes = [*_compare_with_mpi(findings), *_cost_of_one_worker(findings)]
    if any(len(fit.workers) == 1 for fit in fits):
        notes.append(
            "A single number of workers does not separate the cost of a call from that of its messages; all of it is "
            "attributed to the messages."
        )
    tables.append(allreduce_table(findings))
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _compare_with_mpi(findings: Findings) -> List[str]:
    """Compare the allreduce time of the gradients with Horovod and with plain MPI, by their fitted links."""
    plain = next((fit for fit in findings.link_fits if fit.path == "mpi"), None)
    sent = {row.workers: row.bytes for row in sorted(_timed(findings), key=lambda row: row.bytes)}
    notes = []
    for fit in findings.link_fits:
        workers = max(sent.keys() & set(fit.workers).intersection(plain.workers if plain else ()), default=0)
        if workers and fit is not plain and fit.link and plain and plain.link:
            own, other = (1000 * link.seconds(workers, sent[workers]) for link in (fit.link, plain.link))
            notes.append(
                f"According to the fitted links, the gradients of {workers} workers ({size(sent[workers])}) take "
                f"{number(own, 2)} ms with {fit.name} and {number(other, 2)} ms with plain MPI, a ratio of "
                f"{number(own / other, 2)}."
            )
    return notes


def _cost_of_one_worker(findings: Findings) -> List[str]:
    """Describe the cost of a Horovod call with a single worker, which has nothing to communicate."""
    least = {
        fit.name: min((row.median for row in fit.measurements if row.workers == 1), default=0.0)
        for fit in findings.link_fits
        if fit.path != "mpi"
    }
    return [
        f"A call of a single worker, which sends nothing, takes at least {milliseconds(seconds, 3)} ms with {name}."
        for name, seconds in least.items()
        if seconds
    ]


def _predictions(findings: Findings) -> Section:
    section = Section("prediction", "Predictions from compute and link", [])
    if not findings.training_fit or not any(mode.steps for mode in findings.modes):
        reason = "Nothing is predicted: this needs profiled steps, and a fitted link of the path that the jobs used."
        return section._replace(paragraphs=[reason])
    paragraphs = [
        "A predicted step is the own part of the slowest worker (data, compute, update), followed by the communication "
        f"according to the link of {findings.training_fit.name}. A measured step that takes longer contains a cost "
        "that neither of them includes. A step sends the gradients; of W_x, only the rows of the characters that occur "
        "in the batch."
    ]
    tables = [comparison_table(findings.modes)]
    pictures, notes = [], []
    forecasts = [(mode, mode.forecast) for mode in findings.modes if mode.forecast]
    if forecasts:
        tables.append(forecast_table([forecast for _, forecast in forecasts]))
        pictures = [[figures.forecast_figure(mode, forecast) for mode, forecast in forecasts]]
        notes.append(
            f"{capitalized(figures.PREDICTED)}: all further workers are assumed to be as distant as the measured ones. "
            "In weak scaling, what they send is counted in batches of the text of the timed jobs, and is that of all "
            "parameters where that text is shorter than a batch; it is never less than what was measured. The "
            "own part is that of the measured workers, although a larger batch takes longer to read and updates more "
            "rows. "
            "The lower edge of the band assumes that the cost of a call besides its bytes does not depend on the "
            "number of workers (and, in weak scaling, that each worker has a machine to itself); the upper edge "
            "assumes that all of it is a cost per message. Strong scaling ends where every worker has one stream."
        )
    return section._replace(paragraphs=paragraphs, tables=tables, pictures=pictures, notes=notes)


def _perplexity(findings: Findings, out: str) -> Section:
    section = Section("perplexity", "Time to perplexity", [])
    if not findings.target_runs and not findings.rows.failed(["perplexity"]):
        command = f"jobs/scale.py --mode weak {_WORKERS} --to-perplexity 50 {out}"
        return section._replace(paragraphs=[f"Time to perplexity was not measured; run `{command}`."])
    paragraphs = [
        "All efficiencies are relative to the smallest global batch. Hardware efficiency is the ratio of characters "
        "per second and worker. Statistical efficiency is the inverse ratio of the characters needed to reach "
        f"perplexity {_target(findings)}. Their product is the efficiency in time to that perplexity."
    ]
    runs = findings.target_runs
    pictures = [figures.target_figures(runs)] if any(run.reached for run in runs) else []
    return section._replace(paragraphs=paragraphs, tables=[perplexity_table(findings)], pictures=pictures)


def _target(findings: Findings) -> str:
    targets = sorted({runs.target for runs in findings.target_runs})
    return listed([f"{target:g}" for target in targets]) or "the target"
