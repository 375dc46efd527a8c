"""The names of the implementations, and the entries of each benchmark."""

import importlib.util
from typing import List, Optional, Sequence

from lstm_dist.bench.case import Case
from lstm_dist.bench.worker_pool import Entry
from lstm_dist.errors import UserError

ON_ONE_WORKER = (
    "ours",
    "ours-dense",
    "textbook",
    "gluon",
    "torch-lstm",
    "torch-cell",
    "torch-compiled",
    "matmul floor",
)
ON_GPU = ("ours-loop", "ours-persistent")
GUARDS = ("ours", "ours, guarded", "ours, timed")
SIZES = ("ours", "torch-lstm", "torch-cell", "torch-compiled")
SCALING = ("ours", "torch-cell")
OURS_SCALING = ("ours", "ours-dense", "ours, without exchange", "ours, timed")


def select(names: Sequence[str], only: Optional[str]) -> List[str]:
    """Return the names selected by --only, or all, without those that need a library that is not installed.

    Raises:
        UserError: if --only contains an unknown name.
    """
    selected = only.split(",") if only else list(names)
    for name in selected:
        if name not in names:
            raise UserError(f"--only {name}: unknown implementation; choose from: {', '.join(names)}")
    if importlib.util.find_spec("torch"):
        return selected
    print("torch is not installed, so its implementations are left out; to install it: pip install -e '.[bench]'")
    return [name for name in selected if not name.startswith("torch")]


def scaling_entries(base: Case, workers: int, only: Optional[str]) -> List[Entry]:
    """Return entries for one and N workers, with the same streams per worker (weak) and in total (strong)."""
    weak = base._replace(workers=workers, streams=workers * base.streams)
    strong = base._replace(workers=workers)
    entries = []
    for name in select(SCALING, only):
        entries.append(Entry(name, base))
        for case in (weak, strong):
            if name == "ours":
                entries += [Entry(variant, case) for variant in OURS_SCALING]
                entries.append(Entry("ours", case, "gloo"))
            else:
                entries.append(Entry("torch-ddp", case, "gloo"))
    return entries
