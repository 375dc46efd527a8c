"""The registered implementations and benchmark entries."""

import importlib.util
from typing import List, Optional, Sequence

from lstm_dist.bench.case import Case
from lstm_dist.bench.worker_pool import Entry
from lstm_dist.errors import UserError

SINGLE = ("ours", "textbook", "gluon", "torch-lstm", "torch-cell", "torch-compiled", "matmul floor")
GUARDS = ("ours", "ours, guarded", "ours, timed")
SWEPT = ("ours", "torch-lstm", "torch-cell", "torch-compiled")


def choose(names: Sequence[str], only: Optional[str]) -> List[str]:
    """Return the selected implementations that can run here."""
    asked = only.split(",") if only else list(names)
    for name in asked:
        if name not in names:
            raise UserError(f"--only {name}: no such contestant here, give some of: {', '.join(names)}")
    if importlib.util.find_spec("torch"):
        return asked
    print("torch is not installed, its contestants stay away: pip install -e '.[bench]'")
    return [name for name in asked if not name.startswith("torch")]


def scaling(base: Case, workers: int, only: Optional[str]) -> List[Entry]:
    """Return entries for one and N workers, with the same streams per worker (weak) and in total (strong)."""
    weak = base._replace(workers=workers, streams=workers * base.streams)
    strong = base._replace(workers=workers)
    entries = []
    for name in choose(("ours", "torch-cell"), only):
        entries.append(Entry(name, base))
        for case in (weak, strong):
            if name == "ours":
                entries += [Entry(kind, case) for kind in ("ours", "ours, mute", "ours, timed")]
                entries.append(Entry("ours", case, "gloo"))
            else:
                entries.append(Entry("torch-ddp", case, "gloo"))
    return entries
