"""Summarize a scaling report: what limits the job at each number of workers, and what would help."""

from typing import Dict, List

from lstm_dist.experiments.report.formatters import counted, listed, milliseconds, number, percent
from lstm_dist.scaling.analysis import Findings, Mode
from lstm_dist.scaling.bottlenecks import Shares

SCALING = {"weak": "Weak scaling", "strong": "Strong scaling"}


_WORTH_A_WORD = 0.005  # smallest share of a step that is mentioned


_LOSSES = {
    "weak shared": "compute that grows as memory and cores are shared",
    "strong shared": "compute that does not shrink with the streams",
    "wait": "waiting for the slowest",
    "latency": "the latency of the exchange",
    "bandwidth": "the bandwidth of the exchange",
    "exchange": "the exchange",
    "rest": "the update",
}


_REMEDIES = {
    "weak shared": "fewer workers on a host, and more hosts",
    "strong shared": "more streams for each worker, or fewer workers on a host",
    "wait": "equal workers, each on cores that nothing else uses",
    "latency": "larger steps (more streams a worker, a longer window), so that a call's fixed cost is paid less often",
    "bandwidth": "a faster network, larger steps, or `--wire-dtype float16`, which halves what is sent",
    "exchange": "a faster network or larger steps (measuring the network tells which)",
    "rest": "larger steps, as the update is paid once a step",
}


def summary(findings: Findings) -> str:
    """Return one paragraph on what limits the job at each number of workers, and what would help."""
    said = [_of_one(findings.modes)]
    said += [_of_mode(mode, findings.rows.experiment.streams) for mode in findings.modes]
    remedies = [_remedy(mode, mode.shares[-1]) for mode in (_trusted(mode) for mode in findings.modes) if mode.shares]
    if any(remedies):
        said.append(f"What would help: {'; '.join(filter(None, remedies))}.")
    if not any(said):
        said.append("No job of several workers with a core for each has finished: nothing is said about scaling.")
    if findings.oversubscribed:
        said.append(
            f"{listed([str(workers) for workers in findings.oversubscribed])} workers had not a core or GPU each "
            "(oversubscribed): what they did is shown, and nothing is concluded from it."
        )
    return " ".join(filter(None, said))


def _trusted(mode: Mode) -> Mode:
    """Return the mode without oversubscribed groups of several workers."""
    return mode._replace(
        throughputs=[t for t in mode.throughputs if t.group.workers > 1 and not t.group.oversubscribed],
        shares=[s for s in mode.shares if s.split.group.workers > 1 and not s.split.group.oversubscribed],
    )


def _of_one(modes: List[Mode]) -> str:
    alone = [one for mode in modes for one in mode.shares if one.split.group.workers == 1]
    if not alone:
        return ""
    took = milliseconds(alone[0].split.total, 1)
    share = percent(alone[0].useful, 0)
    return f"One worker takes {took} ms a step, {share} of it compute, which is what more workers share."


def _of_mode(mode: Mode, streams: int) -> str:
    trusted = _trusted(mode)
    of_workers = {shares.split.group.workers: shares for shares in trusted.shares}
    clauses: List[str] = []
    before: List[str] = []
    for reached in trusted.throughputs:
        workers = reached.group.workers
        times, ideal = number(reached.speedup.value, 2), percent(reached.efficiency.value, 0)
        first = f"{workers} workers do {times} times the work of one ({ideal} of the ideal)"
        parts = _largest(mode.name, of_workers[workers]) if workers in of_workers else {}
        bound = _bound(parts, again=list(parts) == before)
        clauses.append((f"{workers} workers {times} times ({ideal})" if clauses else first) + bound)
        before = list(parts)
    each = f"{counted(streams, 'stream')} {'for each worker' if mode.name == 'weak' else 'in all'}"
    return f"{SCALING[mode.name]}, {each}: {'; '.join(clauses)}." if clauses else ""


def _largest(mode: str, shares: Shares) -> Dict[str, str]:
    """Return the three largest parts of a step and their shares."""
    parts = [("the compute itself", shares.useful)]
    parts += [(_key(mode, name, _LOSSES), part) for name, part in shares.losses()]
    largest = sorted(parts, key=lambda part: -part[1])[:3]
    return {name: percent(part, 0) for name, part in largest if part >= _WORTH_A_WORD}


def _bound(parts: Dict[str, str], again: bool) -> str:
    """State what limits the job; `again` if the previous clause named the same limit."""
    if not parts:
        return ""
    if again:
        return f", likewise ({', '.join(parts.values())})"
    (name, part), *others = parts.items()
    then = listed([f"{other} ({share})" for other, share in others])
    return f", bound by {name} ({part} of a step)" + (f", then {then}" if then else "")


def _remedy(mode: Mode, shares: Shares) -> str:
    """State a remedy for the largest loss, and the efficiency without that loss."""
    (name, share), *_ = shares.losses()
    workers = shares.split.group.workers
    now = next(reached.efficiency.value for reached in mode.throughputs if reached.group.workers == workers)
    if share < 2 * _WORTH_A_WORD or not now > 0:
        return ""
    said = f"under {mode.name} scaling, {_key(mode.name, name, _REMEDIES)}"
    slowest = shares.split.slowest
    if name == "wait" and slowest and slowest.share * workers > 1.5:
        said += f" (rank {slowest.rank} on {slowest.host} was last in {percent(slowest.share, 0)} of the steps)"
    return f"{said}: without this loss the efficiency of {workers} workers would be {percent(now / (1 - share), 0)}"


def _key(mode: str, name: str, texts: Dict[str, str]) -> str:
    return texts.get(f"{mode} {name}") or texts[name]
