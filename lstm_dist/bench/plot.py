"""Plot the time per character against the sizes of batch and model, one panel per size."""

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
    """Write a PNG with one line per implementation; the sizes not varied in a panel are those of `base`."""
    figure = Figure(figsize=(3.4 * len(sizes), 3.6), layout="constrained")
    panels = figure.subplots(1, len(sizes), sharey=True, squeeze=False)[0]
    names = list(dict.fromkeys(timing.entry.implementation for timing in timings))
    for panel, size in zip(panels, sizes):
        cases = sorted({base, *(base._replace(**{size: value}) for value in sizes[size])})
        for name in names:
            times = {t.entry.case: t.microseconds_per_char for t in timings if t.entry.implementation == name}
            points = [(getattr(case, size), times[case]) for case in cases if case in times]
            panel.plot(*zip(*points), marker="o", label=name)
        panel.set(xlabel=_LABELS[size], xscale="log", yscale="log")
        ticks = [getattr(case, size) for case in cases]
        panel.set_xticks(ticks, labels=[f"{tick:,}" for tick in ticks])
        panel.minorticks_off()
        panel.margins(x=0.15)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("time per character (µs), lower is better")
    panels[0].legend()
    fixed = f"H={base.hidden_size}, V={base.vocab_size}, B={base.streams}, T={base.seq_len}"
    figure.suptitle(f"Training step with {base.threads} thread(s); sizes not varied in a panel: {fixed}")
    figure.savefig(path, dpi=110)
