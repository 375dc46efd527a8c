"""perplexity.png: the plot of a run."""

from pathlib import Path
from typing import List

from lstm_dist.run.epoch_metrics import EpochMetrics


def draw_perplexity(history: List[EpochMetrics], path: Path) -> None:
    """Plot perplexity against the epoch on a logarithmic axis; do nothing without an epoch."""
    if not history:
        return
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt
    from matplotlib.ticker import LogLocator, StrMethodFormatter

    figure, axes = plt.subplots(figsize=(7, 4.2), constrained_layout=True)
    trained = [(m.epoch, m.perplexity) for m in history]
    validation = [(m.epoch, m.valid_perplexity) for m in history if m.valid_perplexity is not None]
    for points, name, colour in ((trained, "training", "#1f5fa8"), (validation, "validation", "#b8541a")):
        if points:
            axes.plot(*zip(*points), color=colour, linewidth=1.8, label=name)
            axes.plot(*points[-1], "o", color=colour)
            axes.annotate(f"{points[-1][1]:.1f}", points[-1], (6, 4), textcoords="offset points")
    if validation:
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
