"""What an exchange costs over each path: the link's constants, fitted to the measured allreduces."""

from math import nan
from statistics import median
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from lstm_dist.scaling.allreduce_model import LONG, SHORT, Algorithm, Link, Sample, fit_link
from lstm_dist.scaling.records import Network, Rows, Size

NAMES = {"horovod-mpi": "Horovod over MPI", "horovod-gloo": "Horovod over Gloo", "mpi": "plain MPI"}
_ALGORITHMS: Dict[str, Algorithm] = {"horovod-mpi": "mpi", "horovod-gloo": "ring", "mpi": "mpi"}


class Measured(NamedTuple):
    """Allreduces of one size by so many workers, seconds.

    Attributes:
        low, median, high: quartiles of the repetitions.
        fitted: what the path's link says; nan where there is none.
        residual: median / fitted - 1 of what was fitted to; nan of the others.
    """

    path: str
    workers: int
    bytes: int
    repetitions: int
    low: float
    median: float
    high: float
    oversubscribed: bool
    fitted: float
    residual: float


class Wire(NamedTuple):
    """One path.

    Attributes:
        link: None where what was measured does not determine it.
        lack: why not; empty where it does.
        workers: the numbers of workers that it was fitted to.
    """

    path: str
    link: Optional[Link]
    lack: str
    workers: Tuple[int, ...]
    measured: List[Measured]

    @property
    def name(self) -> str:
        """The path in words."""
        return NAMES[self.path]


def wires(rows: Rows) -> List[Wire]:
    """One a path of which something was measured."""
    found: Dict[str, List[Network]] = {}
    for row in rows.network:
        if row.state == "finished":
            found.setdefault(row.path, []).append(row)
    return [_wire(path, sorted(found[path], key=lambda row: row.workers)) for path in NAMES if path in found]


def _wire(path: str, rows: List[Network]) -> Wire:
    """What one worker exchanges with itself, and what workers without a core each do, is measured and not fitted to."""
    good = [row for row in rows if row.workers > 1 and not row.oversubscribed]
    link, lack = None, "more than one worker, each with a core of its own, was not measured"
    if good:
        samples = [Sample(row.workers, size.bytes, median(size.seconds)) for row in good for size in row.sizes]
        try:
            link, lack = fit_link(samples, _ALGORITHMS[path], negotiated=path != "mpi"), ""
        except ValueError as error:
            lack = str(error)
    measured = [_measured(row, size, link, row in good) for row in rows for size in row.sizes]
    return Wire(path, link, lack, tuple(row.workers for row in good), measured)


def _measured(row: Network, size: Size, link: Optional[Link], fitted_to: bool) -> Measured:
    low, middle, high = (float(value) for value in np.percentile(size.seconds, [25, 50, 75]))
    fitted = link.seconds(row.workers, size.bytes) if link and row.workers > 1 else nan
    clear = fitted_to and not SHORT <= size.bytes < LONG
    residual = middle / fitted - 1 if clear and fitted > 0 else nan
    return Measured(
        path=row.path,
        workers=row.workers,
        bytes=size.bytes,
        repetitions=len(size.seconds),
        low=low,
        median=middle,
        high=high,
        oversubscribed=row.oversubscribed,
        fitted=fitted,
        residual=residual,
    )


def of_job(wires: List[Wire], launcher: str) -> Optional[Wire]:
    """The path that the training jobs took: Gloo's where their launcher names it; None where it has no link."""
    path = "horovod-gloo" if "gloo" in launcher.lower() else "horovod-mpi"
    return next((wire for wire in wires if wire.path == path and wire.link), None)
