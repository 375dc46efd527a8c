"""Fit the link constants of each communication path to the measured allreduces."""

from math import nan
from statistics import median
from typing import Dict, List, NamedTuple, Optional, Tuple

import numpy as np

from lstm_dist.scaling.allreduce_model import LONG, SHORT, Algorithm, Sample
from lstm_dist.scaling.host_links import HostLinks, fit_host_links
from lstm_dist.scaling.point import MODES
from lstm_dist.scaling.records import AllreduceRow, AllreduceTimes, Rows

PATH_NAMES = {"horovod-mpi": "Horovod over MPI", "horovod-gloo": "Horovod over Gloo", "mpi": "plain MPI"}
_ALGORITHMS: Dict[str, Algorithm] = {"horovod-mpi": "mpi", "horovod-gloo": "ring", "mpi": "mpi"}


class AllreduceMeasurement(NamedTuple):
    """Allreduces of one size with one number of workers, in seconds.

    Attributes:
        low, median, high: quartiles of the repetitions.
        fitted: time according to the path's link; nan if there is none.
        residual: median / fitted - 1 if used in the fit, else nan.
    """

    path: str
    workers: int
    hosts: int
    bytes: int
    repetitions: int
    low: float
    median: float
    high: float
    oversubscribed: bool
    fitted: float
    residual: float


class LinkFit(NamedTuple):
    """The measurements of one communication path, and the links fitted to them.

    Attributes:
        link: the links within a host and between hosts; None if the measurements do not determine them.
        reason: why there is no link; empty if there is one.
        workers: numbers of workers used in the fit.
        on_one_host: those of them that were on one host.
    """

    path: str
    link: Optional[HostLinks]
    reason: str
    workers: Tuple[int, ...]
    on_one_host: Tuple[int, ...]
    measurements: List[AllreduceMeasurement]

    @property
    def name(self) -> str:
        """Return the path's display name."""
        return PATH_NAMES[self.path]


def fit_links(rows: Rows) -> List[LinkFit]:
    """Return one entry per measured path."""
    found: Dict[str, List[AllreduceRow]] = {}
    for row in rows.allreduce_rows:
        if row.state == "finished":
            found.setdefault(row.path, []).append(row)
    return [_fit_path(path, sorted(found[path], key=lambda row: row.workers)) for path in PATH_NAMES if path in found]


def _fit_path(path: str, rows: List[AllreduceRow]) -> LinkFit:
    """Fit one path; rows with one worker or oversubscribed cores are reported, but excluded from the fit."""
    fitted = [row for row in rows if row.workers > 1 and not row.oversubscribed]
    link, reason = None, "several workers with a core each were not measured"
    if fitted:
        samples = [
            Sample(row.workers, size.bytes, median(size.seconds), row.per_host) for row in fitted for size in row.sizes
        ]
        try:
            link, reason = fit_host_links(samples, _ALGORITHMS[path], negotiated=path != "mpi"), ""
        except ValueError as error:
            reason = str(error)
    measurements = [_measurement(row, times, link, row in fitted) for row in rows for times in row.sizes]
    workers = tuple(row.workers for row in fitted)
    on_one_host = tuple(row.workers for row in fitted if row.workers <= row.per_host)
    return LinkFit(path, link, reason, workers, on_one_host, measurements)


def _measurement(
    row: AllreduceRow, times: AllreduceTimes, link: Optional[HostLinks], is_fitted: bool
) -> AllreduceMeasurement:
    low, middle, high = (float(value) for value in np.percentile(times.seconds, [25, 50, 75]))
    placed = link and link._replace(per_host=row.per_host)
    fitted = placed.seconds(row.workers, times.bytes) if placed and row.workers > 1 else nan
    is_used = is_fitted and not SHORT <= times.bytes < LONG
    residual = middle / fitted - 1 if is_used and fitted > 0 else nan
    return AllreduceMeasurement(
        path=row.path,
        workers=row.workers,
        hosts=row.hosts,
        bytes=times.bytes,
        repetitions=len(times.seconds),
        low=low,
        median=middle,
        high=high,
        oversubscribed=row.oversubscribed,
        fitted=fitted,
        residual=residual,
    )


def training_fit(fits: List[LinkFit], rows: Rows) -> Optional[LinkFit]:
    """Return the path that the training jobs used, with their workers per host; None if it has no link.

    The path is Gloo if their launcher names it.
    """
    path = "horovod-gloo" if "gloo" in rows.experiment.launcher.lower() else "horovod-mpi"
    fit = next((fit for fit in fits if fit.path == path), None)
    if not (fit and fit.link):
        return None
    per_host = max((row.per_host for row in rows.finished(MODES) if not row.oversubscribed), default=fit.link.per_host)
    return fit._replace(link=fit.link._replace(per_host=per_host))
