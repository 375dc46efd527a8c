"""Fit the link constants of each communication path to the measured allreduces."""

from math import nan
from statistics import median
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from lstm_dist.scaling.allreduce_model import LONG, SHORT, Algorithm, Link, Sample, fit_link
from lstm_dist.scaling.records import Network, Rows, Size

NAMES = {"horovod-mpi": "Horovod over MPI", "horovod-gloo": "Horovod over Gloo", "mpi": "plain MPI"}
_ALGORITHMS: Dict[str, Algorithm] = {"horovod-mpi": "mpi", "horovod-gloo": "ring", "mpi": "mpi"}


class Measured(NamedTuple):
    """Allreduces of one size with one number of workers, in seconds.

    Attributes:
        low, median, high: quartiles of the repetitions.
        fitted: prediction of the path's link; nan if there is none.
        residual: median / fitted - 1 if used in the fit, else nan.
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
    """One communication path.

    Attributes:
        link: None if the measurements do not determine it.
        lack: why there is no link; empty if there is one.
        workers: numbers of workers used in the fit.
    """

    path: str
    link: Optional[Link]
    lack: str
    workers: Tuple[int, ...]
    measured: List[Measured]

    @property
    def name(self) -> str:
        """The path's display name."""
        return NAMES[self.path]


def wires(rows: Rows) -> List[Wire]:
    """Return one entry per measured path."""
    found: Dict[str, List[Network]] = {}
    for row in rows.network:
        if row.state == "finished":
            found.setdefault(row.path, []).append(row)
    return [_wire(path, sorted(found[path], key=lambda row: row.workers)) for path in NAMES if path in found]


def _wire(path: str, rows: List[Network]) -> Wire:
    """Fit one path; rows with one worker or oversubscribed cores are reported, but excluded from the fit."""
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
    """Return the path that the training jobs used: Gloo if their launcher names it; None if it has no link."""
    path = "horovod-gloo" if "gloo" in launcher.lower() else "horovod-mpi"
    return next((wire for wire in wires if wire.path == path and wire.link), None)
