"""Summarize a scaling report: what limits the job at each number of workers, and what would help."""

from typing import Dict, List

from lstm_dist.experiments.report.formatters import counted, listed, milliseconds, number, percent
from lstm_dist.scaling.analysis import Findings, ModeFindings
from lstm_dist.scaling.bottlenecks import LossShares

SCALING = {"weak": "Weak scaling", "strong": "Strong scaling"}
_SMALLEST_SHARE = 0.005  # of a step; smaller parts are not mentioned

_LOSSES = {
    "weak extra_compute": "extra compute due to shared memory and cores",
    "strong extra_compute": "compute that does not shrink with the streams",
    "wait": "waiting for the slowest worker",
    "latency": "communication latency",
    "bandwidth": "communication bandwidth",
    "communication": "communication",
    "other": "the update",
}
_REMEDIES = {
    "weak extra_compute": "fewer workers per host, and more hosts",
    "strong extra_compute": "more streams per worker, or fewer workers per host",
    "wait": "equally fast workers, each on cores that no other process uses",
    "latency": "larger steps (more streams per worker, a longer window), which need fewer calls",
    "bandwidth": "a faster network, larger steps, or `--wire-dtype float16`, which halves the bytes sent",
    "communication": "a faster network or larger steps (`jobs/scale.py network` finds out which)",
    "other": "larger steps, as there is one update per step",
}


def full_name(mode: ModeFindings) -> str:
    """Return the mode in words, and the series if there are several, as in "weak scaling, gloo"."""
    return ", ".join(filter(None, (SCALING[mode.name].lower(), mode.series)))


def summary(findings: Findings) -> str:
    """Return one paragraph on what limits the job at each number of workers, and what would help.

    Of several series, it compares the throughput instead.
    """
    if len(findings.series) > 1:
        sentences = [_compare_series(findings, name) for name in SCALING]
    else:
        sentences = [_summarize_baseline(findings.modes)]
        sentences += [_summarize_mode(mode, findings.rows.experiment.streams) for mode in findings.modes]
        usable = [_usable(mode) for mode in findings.modes]
        remedies = [_remedy(mode, mode.loss_shares[-1]) for mode in usable if mode.loss_shares]
        if any(remedies):
            sentences.append(f"What would help: {'; '.join(filter(None, remedies))}.")
    if not any(sentences):
        sentences.append(
            "The series are not compared: this needs a number of workers with finished jobs in all of them, and with a "
            "core for each of their threads."
            if len(findings.series) > 1
            else "No conclusions about scaling: this needs finished jobs of two numbers of workers with a core each."
        )
    if findings.oversubscribed:
        sentences.append(
            f"The jobs of {_oversubscribed(findings)} were oversubscribed (more threads than cores, or workers than "
            "GPUs): their results are shown, but not used for conclusions."
        )
    return " ".join(filter(None, sentences))


def _oversubscribed(findings: Findings) -> str:
    """Name the oversubscribed numbers of workers, with their series if there are several."""
    return listed(
        [
            listed([*map(str, others), counted(last, "worker")]) + (f" ({series})" if series else "")
            for series, (*others, last) in findings.oversubscribed.items()
        ]
    )


def _compare_series(findings: Findings, name: str) -> str:
    """Rank the series by throughput, at the largest number of workers that all of them have a core for."""
    modes = [mode for mode in findings.modes if mode.name == name]
    known = [{t.group.workers: t for t in mode.throughputs if not t.group.oversubscribed} for mode in modes]
    workers = max(set.intersection(*map(set, known)), default=0) if len(modes) > 1 else 0
    if not workers:
        return ""
    first, *others = sorted((rates[workers] for rates in known), key=lambda rate: -rate.chars_per_sec.value)
    best = first.chars_per_sec.value
    slower = [f"{rate.group.series} ({percent(rate.chars_per_sec.value / best, 0)} of that)" for rate in others]
    if len(slower) > 3:
        slower[2:] = [f"last {slower[-1]}"]
    fastest = f"{first.group.series} ({number(best)} characters/s)"
    return f"{SCALING[name]}, {counted(workers, 'worker')}: the fastest is {fastest}; then {'; '.join(slower)}."


def _usable(mode: ModeFindings) -> ModeFindings:
    """Return the mode with only the groups that were not oversubscribed, without the baseline."""
    return mode._replace(
        throughputs=[t for t in mode.throughputs if not t.is_baseline and not t.group.oversubscribed],
        loss_shares=[
            shares
            for shares in mode.loss_shares
            if shares.breakdown.group.workers > mode.baseline and not shares.breakdown.group.oversubscribed
        ],
    )


def _summarize_baseline(modes: List[ModeFindings]) -> str:
    firsts = [mode.loss_shares[0] for mode in modes if mode.loss_shares]
    firsts = [shares for shares in firsts if not shares.breakdown.group.oversubscribed]
    if not firsts:
        return ""
    first = min(firsts, key=lambda shares: shares.breakdown.group.workers)
    workers, time = first.breakdown.group.workers, milliseconds(first.breakdown.total, 1)
    who = (
        "One worker takes" if workers == 1 else f"The baseline, {workers} workers ({first.breakdown.group.mode}), takes"
    )
    share = percent(first.useful, 0)
    return f"{who} {time} ms per step, {share} of it compute, which is the part that more workers share."


def _summarize_mode(mode: ModeFindings, streams: int) -> str:
    usable = _usable(mode)
    by_workers = {shares.breakdown.group.workers: shares for shares in usable.loss_shares}
    clauses: List[str] = []
    previous: List[str] = []
    for rate in usable.throughputs:
        workers = rate.group.workers
        speedup, efficiency = number(rate.speedup.value / mode.baseline, 2), percent(rate.efficiency.value, 0)
        others = "one" if mode.baseline == 1 else f"{mode.baseline}"
        first = f"{workers} workers are {speedup} times as fast as {others} (efficiency {efficiency})"
        parts = _largest_parts(mode.name, by_workers[workers]) if workers in by_workers else {}
        clause = f"{workers} workers {speedup} times ({efficiency})" if clauses else first
        clauses.append(clause + _limits(parts, repeated=list(parts) == previous))
        previous = list(parts)
    batch = f"{counted(streams, 'stream')} {'per worker' if mode.name == 'weak' else 'in all'}"
    return f"{SCALING[mode.name]}, {batch}: {'; '.join(clauses)}." if clauses else ""


def _largest_parts(mode: str, shares: LossShares) -> Dict[str, str]:
    """Return the three largest parts of a step and their shares."""
    parts = [("useful compute", shares.useful)]
    parts += [(_text(mode, name, _LOSSES), share) for name, share in shares.losses()]
    largest = sorted(parts, key=lambda part: -part[1])[:3]
    return {name: percent(share, 0) for name, share in largest if share >= _SMALLEST_SHARE}


def _limits(parts: Dict[str, str], repeated: bool) -> str:
    """State the largest parts of a step; `repeated` if the previous clause named the same ones."""
    if not parts:
        return ""
    if repeated:
        return f", with the same largest parts ({', '.join(parts.values())})"
    (name, share), *others = parts.items()
    rest = listed([f"{other} ({other_share})" for other, other_share in others])
    return f", limited by {name} ({share} of a step)" + (f", then {rest}" if rest else "")


def _remedy(mode: ModeFindings, shares: LossShares) -> str:
    """State a remedy for the largest loss, and the efficiency without that loss."""
    (name, share), *_ = shares.losses()
    workers = shares.breakdown.group.workers
    efficiency = next(rate.efficiency.value for rate in mode.throughputs if rate.group.workers == workers)
    if share < 2 * _SMALLEST_SHARE or not efficiency > 0:
        return ""
    remedy = f"under {mode.name} scaling, {_text(mode.name, name, _REMEDIES)}"
    slowest = shares.breakdown.slowest
    if name == "wait" and slowest and slowest.share * workers > 1.5:
        remedy += (
            f" (rank {slowest.rank} on {slowest.host} was the slowest in {percent(slowest.share, 0)} of the steps)"
        )
    if mode.baseline > 1:  # which has losses itself
        return f"{remedy}: without this loss {workers} workers would be {number(1 / (1 - share), 2)} times as fast"
    without = percent(efficiency / (1 - share), 0)
    return f"{remedy}: without this loss the efficiency of {workers} workers would be {without}"


def _text(mode: str, name: str, texts: Dict[str, str]) -> str:
    return texts.get(f"{mode} {name}") or texts[name]
