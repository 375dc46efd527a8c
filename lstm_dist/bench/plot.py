"""Plot the cost per character against size, one panel per size parameter."""

from pathlib import Path
from typing import Mapping, Sequence

from matplotlib.figure import Figure

from lstm_dist.bench.case import Case
from lstm_dist.bench.interleaved import Timing

_LABELS = {
    "hidden_size": "hidden size H",
    "vocab_size": "vocabulary V",
    "streams": "streams B",
    "seq_len": "window T (characters)",
}


def of_sizes(timings: Sequence[Timing], base: Case, sizes: Mapping[str, Sequence[int]], path: Path) -> None:
    """Write a PNG with one line per implementation; sizes that a panel does not vary are those of `base`."""
    figure = Figure(figsize=(3.4 * len(sizes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(timing.entry.contestant for timing in timings))
    for panel, size in zip(panels, sizes):
        along = sorted({base, *(base._replace(**{size: value}) for value in sizes[size])})
        for name in names:
            cost = {t.entry.case: t.microseconds_per_char for t in timings if t.entry.contestant == name}
            points = [(getattr(case, size), cost[case]) for case in along if case in cost]
            panel.plot(*zip(*points), marker="o", label=name)
        panel.set(xlabel=_LABELS[size], xscale="log", yscale="log")
        panel.set_xticks([getattr(case, size) for case in along], labels=[f"{getattr(c, size):,}" for c in along])
        panel.minorticks_off()
        panel.margins(x=0.15)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time a character (µs), lower is better")
    panels[0].legend()
    rest = f"H={base.hidden_size}, V={base.vocab_size}, B={base.streams}, T={base.seq_len}"
    figure.suptitle(f"A training step, {base.threads} thread(s); sizes not varied in a panel: {rest}")
    figure.savefig(path, dpi=110)
