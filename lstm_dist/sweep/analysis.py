"""Report the effect of each setting on perplexity, to answer the exercises of the D2L chapter."""

from itertools import cycle
from math import inf, isnan
from typing import Dict, List, NamedTuple, Sequence

from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from lstm_dist.experiments.report.document import Cell, Picture, Report, Row, Section, Table, estimate
from lstm_dist.experiments.report.figure import HUES, finished, panel, point, styled
from lstm_dist.experiments.report.formatters import capital, counted, listed, number
from lstm_dist.experiments.stats import Estimate, mean, ratio
from lstm_dist.sweep.grid import DEFAULT, DOCUMENT, MEANING
from lstm_dist.sweep.runner import Setup, TrialRow


class Effect(NamedTuple):
    """One value of a factor, with the D2L chapter's values for the others, over all seeds.

    Attributes:
        value: value of the factor.
        trained: training perplexity after the last epoch.
        held_out: validation perplexity after the last epoch.
        best: lowest validation perplexity of any epoch; `best_epoch` is the mean epoch at which it occurred.
    """

    value: str
    seeds: int
    trained: Estimate
    held_out: Estimate
    best: Estimate
    best_epoch: float
    rows: List[TrialRow]


def effects(rows: Sequence[TrialRow]) -> Dict[str, List[Effect]]:
    """Return the effects of every factor with more than one value, ordered by value."""
    found = {}
    for factor in DEFAULT:
        groups: Dict[str, List[TrialRow]] = {}
        for row in rows:
            others_are_the_documents = all(row.values[name] == DOCUMENT[name] for name in DEFAULT if name != factor)
            if row.state == "finished" and row.epochs and others_are_the_documents:
                groups.setdefault(row.values[factor], []).append(row)
        if len(groups) > 1:
            found[factor] = [_effect(value, groups[value]) for value in sorted(groups, key=_order)]
    return found


def _order(value: str) -> "tuple[float, str]":
    """Return a sort key: numbers ascending, then words in the order of the plan."""
    names = list(DEFAULT["batches"])
    return (float(names.index(value)), value) if value in names else (float(value) or inf, "")  # 0 means the whole text


def _effect(value: str, rows: List[TrialRow]) -> Effect:
    best = [min(row.epochs, key=lambda epoch: epoch.valid_perplexity) for row in rows]
    return Effect(
        value,
        len(rows),
        mean([row.epochs[-1].perplexity for row in rows]),
        mean([row.epochs[-1].valid_perplexity for row in rows]),
        mean([epoch.valid_perplexity for epoch in best]),
        sum(epoch.epoch for epoch in best) / len(best),
        rows,
    )


def report(rows: Sequence[TrialRow], setup: Setup) -> Report:
    """Build the report."""
    found = effects(rows)
    failed = [row for row in rows if row.state == "failed"]
    facts = [
        ("trials", f"{counted(len(rows) - len(failed), 'run')} of {setup.epochs} epochs, {len(failed)} failed"),
        ("workers of each", str(setup.workers)),
        ("flags of all", " ".join(setup.flags) or "none"),
    ]
    sections = [_section(factor, found[factor]) for factor in found]
    if failed:
        table = Table(
            "Trials that failed", ["trial", "its last word"], [Row([Cell(r.name), Cell(r.message)]) for r in failed]
        )
        sections.append(Section("failed", "Failed", [], [table]))
    return Report("The chapter's exercises", summary(found), [], facts, sections)


def summary(found: Dict[str, List[Effect]]) -> str:
    """Answer both questions of the D2L chapter in one paragraph."""
    said = [_hyperparameter(factor, found[factor]) for factor in found if factor != "batches"]
    if "batches" in found:
        said.append(_carried({effect.value: effect for effect in found["batches"]}))
    return " ".join(filter(None, said)) or "Nothing was varied yet."


def _hyperparameter(factor: str, found: List[Effect]) -> str:
    """State which value had the best validation perplexity, and by how much."""
    if factor == "max-chars":
        first, last = found[0], found[-1]
        most = "all" if last.value == "0" else last.value
        return (
            f"--max-chars: from {first.value} to {most} characters the training perplexity goes from "
            f"{number(first.trained.value, 1)} to {number(last.trained.value, 1)}; every length has a vocabulary and a "
            "held out text of its own, so that none is the best."
        )
    best, *others = sorted(found, key=lambda effect: effect.best.value)
    worst, equals = others[-1], [best, *(other for other in others if not _differ(best, other))]
    least, most = number(best.best.value, 1), number(worst.best.value, 1)
    if worst in equals:
        return f"--{factor}: no difference that can be told on the held out text, from {least} to {most} at best."
    names = listed([effect.value for effect in equals])
    are = "is" if len(equals) == 1 else "cannot be told apart and are"
    once = "; of single runs" if any(effect.seeds == 1 for effect in found) else ""
    return (
        f"--{factor}: {names} {are} best on the held out text, with a perplexity of {least} after epoch "
        f"{best.best_epoch:.0f}; {worst.value} is worst, with {most}{once}."
    )


def _carried(found: Dict[str, Effect]) -> str:
    """State the effect of carrying the state over with random sampling."""
    zeroed, carried = found.get("random/window"), found.get("random/epoch")
    if not (zeroed and carried):
        return ""
    change = carried.trained.value / zeroed.trained.value - 1
    both = ([row.epochs[-1].perplexity for row in effect.rows] for effect in (carried, zeroed))
    effect = "makes no difference that can be told" if not _is_not_one(*both) else (
        f"makes the training perplexity {abs(100 * change):.0f} % {'higher' if change > 0 else 'lower'}"
    )  # fmt: skip
    return (
        f"Random sampling with the state zeroed only where an epoch starts, so that a window goes on from a state that "
        f"another part of the text has left, {effect}: {number(carried.trained.value, 1)} against "
        f"{number(zeroed.trained.value, 1)} with the state zeroed before every window, and "
        f"{number(carried.best.value, 1)} against {number(zeroed.best.value, 1)} at best on the held out text."
    )


def _differ(one: Effect, other: Effect) -> bool:
    """Return whether the best validation perplexities differ by more than the seeds do; single runs always count."""
    rows = [[min(epoch.valid_perplexity for epoch in row.epochs) for row in effect.rows] for effect in (one, other)]
    return _is_not_one(*rows)


def _is_not_one(above: Sequence[float], below: Sequence[float]) -> bool:
    """Return whether the interval of the ratio, if there is one, excludes 1."""
    found = ratio(above, below)
    return found.value != 1 if isnan(found.low) else not found.low <= 1 <= found.high


def _section(factor: str, found: List[Effect]) -> Section:
    columns = ["value", "seeds", "training", "95 %", "held out", "95 %", "held out, best", "95 %", "after epoch"]
    rows = [
        Row(
            [
                Cell(effect.value, {"factor": factor, "value": effect.value}),
                Cell(str(effect.seeds), {"seeds": effect.seeds}),
                *estimate("trained", effect.trained, 1),
                *estimate("held_out", effect.held_out, 1),
                *estimate("best", effect.best, 1),
                Cell(f"{effect.best_epoch:.0f}", {"best_epoch": effect.best_epoch}),
            ]
        )
        for effect in found
    ]
    table = Table(f"Perplexity by --{factor}", columns, rows, f"{factor}.csv")
    words = [f"{capital(MEANING[factor])}; everything else is the document's."]
    return Section(factor, f"--{factor}", words, [table], [[of_values(factor, found), of_epochs(factor, found)]])


@styled
def of_values(factor: str, found: List[Effect]) -> Picture:
    """Draw the perplexity of every value."""
    figure, axes = panel()
    for place, effect in enumerate(found):
        point(axes, place, effect.trained, HUES[0], "o", False)
        point(axes, place, effect.best, HUES[1], "s", False)
    axes.plot([], [], "o", color=HUES[0], label="training, last epoch")
    axes.plot([], [], "s", color=HUES[1], label="held out, best epoch")
    names = [effect.value.replace("/", "\n") for effect in found]
    axes.set_xticks(range(len(found)), labels=names)
    axes.set_xlabel(f"--{factor}")
    axes.set_ylabel("perplexity")
    axes.margins(x=0.12)
    axes.set_ylim(bottom=0)
    told = "; ".join(f"{e.value}: {number(e.trained.value, 1)} and {number(e.best.value, 1)}" for e in found)
    return finished(figure, "Where it ends", f"Training and best held out perplexity: {told}")


@styled
def of_epochs(factor: str, found: List[Effect]) -> Picture:
    """Draw validation perplexity by epoch, one line per seed."""
    figure, axes = panel()
    for effect, hue in zip(found, cycle(HUES)):
        for row in effect.rows:
            label = effect.value if row is effect.rows[0] else None
            axes.plot([e.epoch for e in row.epochs], [e.valid_perplexity for e in row.epochs], color=hue, label=label)
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.set_xlabel("epoch")
    axes.set_ylabel("held out perplexity (log scale)")
    columns = len(found) if factor != "batches" else 2
    return finished(figure, "How it gets there", f"Held out perplexity by epoch, for --{factor}", columns)
