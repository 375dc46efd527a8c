"""Build the report's sections from tables, pictures and text, and state what is missing from them."""

import shlex
from pathlib import Path
from typing import List, Sequence

from lstm_dist.experiments.report.document import Report, Section
from lstm_dist.experiments.report.formatters import capital, counted, listed, milliseconds, number, size
from lstm_dist.scaling import figures, tables
from lstm_dist.scaling.analysis import Findings
from lstm_dist.scaling.summary import summary

_WORKERS = "--workers 1,2,4"


def report(findings: Findings, folder: Path) -> Report:
    """Build the report; `folder` is the experiment's, for the commands that would complete it."""
    out = f"--out {shlex.quote(str(folder))}"
    sections = [_scaling(findings, out), _times(findings, out), _network(findings, out)]
    sections += [_prediction(findings), _perplexity(findings, out)]
    warnings = [f"{difference}: what is compared here may not be alike" for difference in findings.rows.mixed]
    return Report("Scaling report", summary(findings), warnings, _facts(findings), sections)


def _facts(findings: Findings) -> "List[tuple[str, str]]":
    """Return the facts about the measurement."""
    experiment, points, network = findings.rows.experiment, findings.rows.points, findings.rows.network
    jobs, unfinished = [*points, *network], findings.rows.unfinished
    failed = sum(job.state == "failed" for job in jobs)
    done = f"{counted(len(points), 'training job')} and {counted(len(network), 'network job')}: "
    done += f"{len(jobs) - failed} finished, {failed} failed"
    layers = f"{experiment.layers} layers of " if experiment.layers > 1 else ""
    model = (
        f"LSTM of {layers}{number(experiment.hidden_size)} hidden units, {number(experiment.vocab_size)} characters, "
    )
    model += f"{number(experiment.parameters)} parameters; windows of {experiment.seq_len} characters"
    timed = (
        f"{counted(experiment.epochs, 'epoch')} of {counted(experiment.steps, 'step')}, {experiment.warm_up} to warm "
    )
    timed += f"up; {counted(experiment.streams, 'stream')} for each worker (weak) or in all (strong)"
    facts = {
        "machine": _all_of([job.machine for job in jobs]),
        "started by": experiment.launcher,
        "model": model,
        "jobs": done + (f"; without a result: {listed(unfinished)}" if unfinished else ""),
        "a timed job": timed,
    }
    for point in sorted(points, key=lambda point: (point.mode != "perplexity", point.workers))[-1:]:
        devices = _all_of([device for point in points for device in point.devices])
        hosts, cores = max(point.hosts for point in points), max(point.cores for point in points)
        facts["workers on"] = f"{counted(hosts, 'host')} with {counted(cores, 'core')}; {devices}"
        facts["exchanged"] = f"{size(point.bytes)} in every step, by every worker"
        facts["command"] = f"{point.command} (of {point.id})"
    facts["program"] = f"commit {_all_of([job.commit for job in jobs])}"
    return list(facts.items())


def _all_of(values: Sequence[str]) -> str:
    return listed([value for value in dict.fromkeys(values) if value] or ["unknown"])


def _scaling(findings: Findings, out: str) -> Section:
    modes = findings.modes
    section = Section("scaling", "Throughput, speedup, efficiency", [])
    notes = [
        f"{capital(name)} scaling was not measured: `jobs/scale.py --mode {name} {_WORKERS} {out}` does that."
        for name in ("weak", "strong")
        if name not in [mode.name for mode in modes]
    ]
    shown = [tables.of_scaling(findings)]
    if not modes:
        return section._replace(words=notes, tables=shown if shown[0].rows else [])
    words = [
        "Weak scaling gives every worker as many streams as one has alone, strong scaling divides them. Speedup is "
        "over one worker of the same mode. Hollow markers are oversubscribed: more workers than cores or GPUs, and no "
        "law is fitted to them."
    ]
    drawn = [[figures.of_throughput(modes), figures.of_efficiency(modes)]]
    drawn.append([figures.of_speedup(m) for m in modes if any(t.speedup.value > 0 for t in m.throughputs)])
    if any(mode.laws.amdahl for mode in modes):
        shown.append(tables.of_laws(modes))
        notes.append(
            "Amdahl (1967): N / (1 + σ (N − 1)); USL, the universal scalability law (Gunther 2007): "
            "N / (1 + σ (N − 1) + κ N (N − 1)). A law with as many unknowns as points meets them exactly, and its "
            "residuals say nothing."
        )
    return section._replace(words=words, tables=shown, pictures=drawn, notes=notes)


def _times(findings: Findings, out: str) -> Section:
    section = Section("times", "Where the time of a step goes", [])
    modes = [mode for mode in findings.modes if mode.splits]
    if not modes:
        return section._replace(words=[f"No step was sampled: `jobs/scale.py {_WORKERS} {out}` does that."])
    words = [
        "Of the steps that were sampled: data cuts the window, compute is forward and backward, wait lasts until the "
        "slowest worker has arrived, wire is the averaging allreduce, update clips and steps. Hatched bars are "
        "oversubscribed."
    ]
    shown, notes = [], []
    if any(mode.shares for mode in modes):
        shown.append(tables.of_shares(modes))
        notes.append(
            "Compute itself is what one worker alone needs for as many streams; further compute is what it takes "
            "beyond that. Latency and bandwidth divide the measured wire as the link's constants do."
        )
    if any(split.slowest for mode in modes for split in mode.splits):
        shown.append(tables.of_slowest(modes))
    shown.append(tables.of_times(modes))
    return section._replace(words=words, tables=shown, pictures=[[figures.of_times(m) for m in modes]], notes=notes)


def _network(findings: Findings, out: str) -> Section:
    section = Section("network", "The network alone", [])
    if not findings.rows.network:
        words = [f"The network was not measured: `jobs/scale.py network {_WORKERS} {out}` does that."]
        return section._replace(words=words)
    gradients = max([point.bytes for point in findings.rows.points], default=0)
    words = ["Allreduces of many sizes and nothing else: the median of the repetitions, and their quartiles."]
    shown = [tables.of_links(findings.wires)] if findings.wires else []
    drawn = [figures.of_wires(findings.wires, gradients)]
    drawn.append([figures.of_residuals(wire, gradients) for wire in findings.wires if wire.link])
    notes = [*_beside_mpi(findings, gradients), *_alone(findings)]
    if any(len(wire.workers) == 1 for wire in findings.wires):
        notes.append(
            "One number of workers does not tell what a call costs from what its messages cost: the messages get all."
        )
    return section._replace(words=words, tables=[*shown, tables.of_network(findings)], pictures=drawn, notes=notes)


def _beside_mpi(findings: Findings, gradients: int) -> List[str]:
    """Compare the allreduce time of the gradients with Horovod and with plain MPI, by their fitted links."""
    plain = next((wire for wire in findings.wires if wire.path == "mpi"), None)
    said = []
    for wire in findings.wires:
        workers = max(set(wire.workers) & set(plain.workers), default=0) if plain and wire is not plain else 0
        if workers and gradients and wire.link and plain and plain.link:
            own, other = (1000 * link.seconds(workers, gradients) for link in (wire.link, plain.link))
            said.append(
                f"For the gradients of {workers} workers, {size(gradients)}, {wire.name} takes {number(own, 2)} ms and "
                f"plain MPI {number(other, 2)} ms, by their links: {number(own / other, 2)} times as long."
            )
    return said


def _alone(findings: Findings) -> List[str]:
    """Describe the cost of a Horovod call with a single worker, which has nothing to communicate."""
    least = {
        wire.name: min((one.median for one in wire.measured if one.workers == 1), default=0.0)
        for wire in findings.wires
        if wire.path != "mpi"
    }
    return [
        f"A call of one worker, who sends nothing, takes at least {milliseconds(seconds, 3)} ms by {name}."
        for name, seconds in least.items()
        if seconds
    ]


def _prediction(findings: Findings) -> Section:
    section = Section("prediction", "What compute and link predict", [])
    if not findings.wire or not any(mode.steps for mode in findings.modes):
        words = ["Nothing is predicted: that takes sampled steps, and a link of the path that the jobs took."]
        return section._replace(words=words)
    words = [
        "Predicted is a worker's own part, with the compute of the slowest, and after it the exchange by the link of "
        f"{findings.wire.name}. Where that falls short, a step holds something that neither of them knows of."
    ]
    shown, drawn, notes = [tables.of_steps(findings.modes)], [], []
    far = [(mode, mode.forecast) for mode in findings.modes if mode.forecast]
    if far:
        shown.append(tables.of_forecasts([forecast for _, forecast in far]))
        drawn = [[figures.of_forecast(mode, forecast) for mode, forecast in far if forecast]]
        notes.append(
            f"{capital(figures.PREDICTED)}: every further worker is taken to be as far away as the measured ones are. "
            "For the lower edge of the band a call costs the same besides its bytes, however many the workers are "
            "(and, weak, each has a machine to itself); for the upper edge all of that is paid for each message. "
            "Strong scaling ends where every worker has one stream."
        )
    return section._replace(words=words, tables=shown, pictures=drawn, notes=notes)


def _perplexity(findings: Findings, out: str) -> Section:
    section = Section("perplexity", "Time to perplexity", [])
    if not findings.reaches and not findings.failed("perplexity"):
        command = f"jobs/scale.py --mode weak {_WORKERS} --to-perplexity 50 {out}"
        return section._replace(words=[f"Training to a perplexity was not measured: `{command}` does that."])
    words = [
        "Hardware efficiency is characters a second and worker, over those at the smallest global batch. Statistical "
        f"efficiency is the characters that the smallest needs to perplexity {_target(findings)}, over those that this "
        "batch needs. Only their product says how soon it is reached."
    ]
    drawn = [figures.of_reaches(findings.reaches)] if any(reach.repeats for reach in findings.reaches) else []
    return section._replace(words=words, tables=[tables.of_perplexity(findings)], pictures=drawn)


def _target(findings: Findings) -> str:
    targets = sorted({reach.target for reach in findings.reaches})
    return listed([f"{target:g}" for target in targets]) or "the target"
