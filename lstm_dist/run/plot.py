"""perplexity.png: the plot of a run."""

from pathlib import Path
from typing import List, Tuple, Union

from lstm_dist.run.metrics_file import EpochMetrics, Metrics, StepsReport

_FEW = 30  # points that are marked one by one, beside reports inside epochs

Points = List[Tuple[float, float]]  # epoch and perplexity


def draw_perplexity(metrics: Metrics, path: Path) -> None:
    """Plot perplexity against the epoch on a logarithmic axis; do nothing without an epoch and a report."""
    if not (metrics.epochs or metrics.reports):
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    reported, trained, validated = _reported(metrics), _trained(metrics), _validated(metrics)
    of_epochs = "training, means of epochs" if reported else "training"
    for points, name, colour, width in (
        (reported, "training, reports", "#8fb4dc", 0.9),
        (trained, of_epochs, "#1f5fa8", 1.8),
        (validated, "validation", "#b8541a", 1.8),
    ):
        if points:
            mark = "." if reported and len(points) < _FEW else ""
            axes.plot(*zip(*points), color=colour, linewidth=width, marker=mark, label=name)
            if points is not reported or not trained:
                axes.plot(*points[-1], "o", color=colour)
                axes.annotate(f"{points[-1][1]:.1f}", points[-1], (6, 4), textcoords="offset points")
    if reported or validated:
        axes.legend(frameon=False)
    axes.margins(x=0.08)  # room for the last number
    axes.set_yscale("log")
    lowest, highest = axes.get_ylim()
    axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if highest > 10 * lowest else (1, 2, 3, 4, 5, 7)))
    axes.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.set(xlabel="epoch", ylabel="perplexity (log scale)", title="Perplexity")
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _trained(metrics: Metrics) -> Points:
    return [(line.epoch, line.perplexity) for line in metrics.epochs]


def _reported(metrics: Metrics) -> Points:
    return [(line.epoch, line.perplexity) for line in metrics.reports]


def _validated(metrics: Metrics) -> Points:
    """Return the validation perplexities; an epoch and a report of the same step have the same one."""
    lines: List[Union[EpochMetrics, StepsReport]] = [*metrics.epochs, *metrics.reports]
    lines.sort(key=lambda line: line.step)
    found = {line.step: (line.epoch, line.valid_perplexity) for line in lines if line.valid_perplexity is not None}
    return list(found.values())
