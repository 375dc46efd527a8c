"""Analysis and report of the effect of each setting on perplexity, which answers the exercises of the D2L chapter."""

from itertools import cycle
from math import inf, isnan
from typing import Dict, List, NamedTuple, Sequence

from matplotlib.ticker import LogLocator, NullLocator, StrMethodFormatter

from lstm_dist.experiments.report.document import Cell, Picture, Report, Row, Section, Table, estimate_cells
from lstm_dist.experiments.report.figure import HUES, Mark, draw_marks, panel, styled, to_picture
from lstm_dist.experiments.report.formatters import capitalized, counted, listed, number
from lstm_dist.experiments.stats import Estimate, mean, ratio
from lstm_dist.sweep.grid import CHAPTER, DEFAULT, MEANING
from lstm_dist.sweep.runner import SweepSettings, TrialRow


class Effect(NamedTuple):
    """The results of one value of a factor over all seeds; the other factors have the D2L chapter's values.

    Attributes:
        value: value of the factor.
        training: training perplexity after the last epoch.
        validation: validation perplexity after the last epoch.
        best: lowest validation perplexity of any epoch; `best_epoch` is the mean epoch at which it occurred.
    """

    value: str
    seeds: int
    training: Estimate
    validation: Estimate
    best: Estimate
    best_epoch: float
    rows: List[TrialRow]


def effects(rows: Sequence[TrialRow]) -> Dict[str, List[Effect]]:
    """Return the effects of every factor with more than one value, ordered by value."""
    found = {}
    for factor in DEFAULT:
        groups: Dict[str, List[TrialRow]] = {}
        for row in rows:
            others_unchanged = all(row.values[name] == CHAPTER[name] for name in DEFAULT if name != factor)
            if row.state == "finished" and row.epochs and others_unchanged:
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


def report(rows: Sequence[TrialRow], settings: SweepSettings) -> Report:
    """Build the report."""
    found = effects(rows)
    failed = [row for row in rows if row.state == "failed"]
    facts = [
        ("trials", f"{counted(len(rows) - len(failed), 'run')} of {settings.epochs} epochs, {len(failed)} failed"),
        ("workers per run", str(settings.workers)),
        ("common flags", " ".join(settings.flags) or "none"),
    ]
    sections = [_section(factor, found[factor]) for factor in found]
    if failed:
        rows_of_failed = [Row([Cell(row.name), Cell(row.message)]) for row in failed]
        table = Table("Failed trials", ["trial", "last error message"], rows_of_failed)
        sections.append(Section("failed", "Failed", [], [table]))
    return Report("The exercises of the D2L chapter", summary(found), [], facts, sections)


def summary(found: Dict[str, List[Effect]]) -> str:
    """Answer both questions of the D2L chapter in one paragraph."""
    sentences = [_summarize_factor(factor, found[factor]) for factor in found if factor != "batches"]
    if "batches" in found:
        sentences.append(_summarize_carried_state({effect.value: effect for effect in found["batches"]}))
    return " ".join(filter(None, sentences)) or "No setting has been varied yet."


def _summarize_factor(factor: str, found: List[Effect]) -> str:
    """State which value had the best validation perplexity, and by how much."""
    if factor == "max-chars":
        first, last = found[0], found[-1]
        longest = "all" if last.value == "0" else last.value
        return (
            f"--max-chars: from {first.value} to {longest} characters, the training perplexity changes from "
            f"{number(first.training.value, 1)} to {number(last.training.value, 1)}; every length has its own "
            "vocabulary and validation set, so validation perplexities are not compared."
        )
    best, *others = sorted(found, key=lambda effect: effect.best.value)
    worst, equals = others[-1], [best, *(other for other in others if not _differ(best, other))]
    lowest, highest = number(best.best.value, 1), number(worst.best.value, 1)
    if worst in equals:
        return f"--{factor}: no significant difference in best validation perplexity ({lowest} to {highest})."
    names = listed([effect.value for effect in equals])
    verb = "has" if len(equals) == 1 else "do not differ significantly and have"
    single = "; each value was run once" if any(effect.seeds == 1 for effect in found) else ""
    return (
        f"--{factor}: {names} {verb} the best validation perplexity, {lowest} after epoch {best.best_epoch:.0f}; "
        f"{worst.value} has the worst, {highest}{single}."
    )


def _summarize_carried_state(found: Dict[str, Effect]) -> str:
    """State the effect of carrying the state over with random sampling."""
    zeroed, carried = found.get("random/window"), found.get("random/epoch")
    if not (zeroed and carried):
        return ""
    change = carried.training.value / zeroed.training.value - 1
    last_of_carried, last_of_zeroed = ([row.epochs[-1].perplexity for row in e.rows] for e in (carried, zeroed))
    if _ratio_excludes_one(last_of_carried, last_of_zeroed):
        effect = f"makes the training perplexity {abs(100 * change):.0f} % {'higher' if change > 0 else 'lower'}"
    else:
        effect = "makes no significant difference in training perplexity"
    return (
        "Random sampling with the state zeroed only at the start of an epoch, so that a window continues from the "
        f"state of an unrelated part of the text, {effect}: {number(carried.training.value, 1)} against "
        f"{number(zeroed.training.value, 1)} with the state zeroed before every window; best validation perplexity "
        f"{number(carried.best.value, 1)} against {number(zeroed.best.value, 1)}."
    )


def _differ(one: Effect, other: Effect) -> bool:
    """Return whether the best validation perplexities differ by more than the seeds do; single runs always count."""
    above, below = ([min(epoch.valid_perplexity for epoch in row.epochs) for row in e.rows] for e in (one, other))
    return _ratio_excludes_one(above, below)


def _ratio_excludes_one(above: Sequence[float], below: Sequence[float]) -> bool:
    """Return whether the confidence interval of the ratio, or the ratio itself if it has none, excludes 1."""
    found = ratio(above, below)
    return found.value != 1 if isnan(found.low) else not found.low <= 1 <= found.high


def _section(factor: str, found: List[Effect]) -> Section:
    columns = ["value", "seeds", "training", "95 %", "validation", "95 %", "best validation", "95 %", "at epoch"]
    rows = [
        Row(
            [
                Cell(effect.value, {"factor": factor, "value": effect.value}),
                Cell(str(effect.seeds), {"seeds": effect.seeds}),
                *estimate_cells("trained", effect.training, 1),
                *estimate_cells("held_out", effect.validation, 1),
                *estimate_cells("best", effect.best, 1),
                Cell(f"{effect.best_epoch:.0f}", {"best_epoch": effect.best_epoch}),
            ]
        )
        for effect in found
    ]
    table = Table(f"Perplexity by --{factor}", columns, rows, f"{factor}.csv")
    paragraphs = [f"{capitalized(MEANING[factor])}; all other settings are those of the D2L chapter."]
    figures = [values_figure(factor, found), epochs_figure(factor, found)]
    return Section(factor, f"--{factor}", paragraphs, [table], [figures])


@styled
def values_figure(factor: str, found: List[Effect]) -> Picture:
    """Draw the perplexity of every value."""
    figure, axes = panel()
    marks = [Mark(position, effect.training, HUES[0], "o") for position, effect in enumerate(found)]
    draw_marks(axes, [*marks, *(Mark(position, effect.best, HUES[1], "s") for position, effect in enumerate(found))])
    axes.plot([], [], "o", color=HUES[0], label="training, last epoch")
    axes.plot([], [], "s", color=HUES[1], label="validation, best epoch")
    names = [effect.value.replace("/", "\n") for effect in found]
    axes.set_xticks(range(len(found)), labels=names)
    axes.set_xlabel(f"--{factor}")
    axes.set_ylabel("perplexity")
    axes.margins(x=0.12)
    values = "; ".join(f"{e.value}: {number(e.training.value, 1)} and {number(e.best.value, 1)}" for e in found)
    return to_picture(figure, "Perplexity by value", f"Training and best validation perplexity: {values}")


@styled
def epochs_figure(factor: str, found: List[Effect]) -> Picture:
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
    axes.set_ylabel("validation perplexity (log scale)")
    columns = len(found) if factor != "batches" else 2
    return to_picture(
        figure, "Validation perplexity by epoch", f"Validation perplexity by epoch, for --{factor}", columns
    )
