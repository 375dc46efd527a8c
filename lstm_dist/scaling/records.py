"""Read and validate the records of an experiment: one row per job, one row per path and number of workers.

experiment.json                       settings common to all jobs
points/<id>/row.json                  a training job: weak-n002-r1, strong-n004-r3, perplexity-n002-r1
network/<path>-n<NNN>/row.json        only allreduces, of many sizes
"""

from itertools import chain
from pathlib import Path
from typing import Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple

from pydantic import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.records import Record, _damaged, read_row

State = Literal["finished", "failed"]


class Experiment(Record):
    """Settings common to all jobs of a folder.

    Attributes:
        streams: of one worker under weak scaling, of the whole job under strong scaling.
        parameters: number of model parameters.
        steps, epochs: steps per epoch, and epochs of a timed job.
        warm_up: number of initial epochs that are not counted.
        flags: other flags of jobs/train.py.
        launcher: description of the launcher.
    """

    streams: PositiveInt
    seq_len: PositiveInt
    hidden_size: PositiveInt
    layers: PositiveInt = 1
    vocab_size: PositiveInt
    parameters: PositiveInt
    steps: PositiveInt
    epochs: PositiveInt
    warm_up: NonNegativeInt
    flags: Tuple[str, ...] = ()
    launcher: str


class Epoch(Record):
    """One epoch of a timed job after the warm-up; chars_per_sec is the total of all its workers."""

    chars_per_sec: PositiveFloat
    steps: PositiveInt


class Times(Record):
    """Profile of one step of one worker, in seconds.

    Attributes:
        data: cutting the window.
        compute: forward and backward.
        wait: waiting for the slowest worker.
        wire: the averaging allreduce.
        update: clip and SGD.
    """

    step: NonNegativeInt
    rank: NonNegativeInt
    host: str
    data: NonNegativeFloat
    compute: NonNegativeFloat
    wait: NonNegativeFloat
    wire: NonNegativeFloat
    update: NonNegativeFloat


class _Job(Record):
    """Fields common to both kinds of rows; `status` and `message` describe a failure."""

    workers: PositiveInt
    state: State
    status: int = 0
    message: str = ""
    machine: str
    commit: str
    code: str
    hosts: NonNegativeInt
    oversubscribed: bool


class Point(_Job):
    """A training job.

    Attributes:
        streams: of the whole job.
        repeat: repetition, from 1.
        cores, devices: of all workers together.
        bytes: of the communicated gradients.
        target, reached, chars, train_seconds: of a "perplexity" job: the target perplexity, whether it was reached, and
            the characters and seconds of training until then.
    """

    id: str
    mode: Literal["weak", "strong", "perplexity"]
    streams: PositiveInt
    repeat: PositiveInt
    command: str
    cores: NonNegativeInt = 0
    devices: Tuple[str, ...] = ()
    bytes: NonNegativeInt = 0
    epochs: Tuple[Epoch, ...] = ()
    times: Tuple[Times, ...] = ()
    target: Optional[FiniteFloat] = None
    reached: bool = False
    chars: Optional[PositiveInt] = None
    train_seconds: Optional[PositiveFloat] = None

    @property
    def chars_per_sec(self) -> float:
        """Throughput of all workers together over all counted epochs."""
        steps = sum(epoch.steps for epoch in self.epochs)
        return steps / sum(epoch.steps / epoch.chars_per_sec for epoch in self.epochs)


class Size(Record):
    """Seconds of each allreduce of this many bytes, averaged over the ranks."""

    bytes: PositiveInt
    seconds: Tuple[PositiveFloat, ...]


class Network(_Job):
    """Allreduces over one path: Horovod over MPI or Gloo, or plain MPI."""

    path: Literal["horovod-mpi", "horovod-gloo", "mpi"]
    sizes: Tuple[Size, ...] = ()


class Rows(NamedTuple):
    """All rows of a folder.

    Attributes:
        mixed: inconsistencies between rows; empty if there are none.
        unfinished: folders of jobs without a row, interrupted or still running.
    """

    experiment: Experiment
    points: List[Point]
    network: List[Network]
    mixed: List[str]
    unfinished: List[str]

    def finished(self, *modes: str) -> List[Point]:
        """Return the finished training jobs of these modes."""
        return [point for point in self.points if point.mode in modes and point.state == "finished"]


def read(folder: Path, allow_mixed: bool) -> Rows:
    """Read all rows of a folder.

    Raises:
        UserError: if it is not an experiment, has no rows yet, has an invalid file, or mixes rows of several machines
            or programs without `allow_mixed`.
    """
    file = folder / "experiment.json"
    if not file.is_file():
        lack = "has no experiment.json" if folder.is_dir() else "there is no such folder"
        raise UserError(f"{folder}: {lack}; give the --out of jobs/scale.py", ExitStatus.NO_INPUT)
    places = sorted(path for path in folder.glob("points/*") if path.is_dir())
    points = {p: read_row(p / "row.json", Point) for p in places if (p / "row.json").is_file()}
    network = {file.parent: read_row(file, Network) for file in sorted(folder.glob("network/*/row.json"))}
    if not points and not network:
        raise UserError(f"{folder}: nothing was measured yet; jobs/scale.py --out {folder} does", ExitStatus.NO_INPUT)
    for path, point in points.items():
        _require_numbers(path / "row.json", point)
    for path, row in network.items():
        if row.state == "finished" and not (row.sizes and all(size.seconds for size in row.sizes)):
            raise _damaged(path / "row.json", "finished, and without times")
    mixed = list(_differences({**points, **network}))
    if mixed and not allow_mixed:
        raise UserError(f"{folder}: {mixed[0]}; measure again, or give --allow-mixed", ExitStatus.BAD_DATA)
    unfinished = [path.name for path in places if path not in points]
    return Rows(read_row(file, Experiment), list(points.values()), list(network.values()), mixed, unfinished)


def _require_numbers(path: Path, point: Point) -> None:
    """Check that a finished job has the numbers that its mode requires."""
    if point.state == "failed":
        return
    if point.times and not sum(times.compute for times in point.times):
        raise _damaged(path, "times: no compute in any of them")
    if point.mode == "perplexity":
        if point.target is None or point.chars is None or point.train_seconds is None:
            raise _damaged(path, "finished, and without target, chars or train_seconds")
    elif not point.epochs:
        raise _damaged(path, "finished, and without epochs")


def _differences(rows: Dict[Path, _Job]) -> "chain[str]":
    """Return inconsistencies between finished jobs; failed jobs are skipped, as their numbers are not used."""
    finished = [(path, row) for path, row in rows.items() if row.state == "finished"]
    return chain.from_iterable(_difference(name, finished) for name in ("machine", "commit", "code"))


def _difference(name: str, rows: Sequence[Tuple[Path, _Job]]) -> List[str]:
    first: Dict[str, str] = {}
    for path, row in rows:
        first.setdefault(getattr(row, name), path.name)
    if len(first) < 2:
        return []
    (one, where), (other, there) = list(first.items())[:2]
    return [f"{where} and {there} differ in {name}: {one or 'unknown'} and {other or 'unknown'}"]
