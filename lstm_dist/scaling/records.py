"""What an experiment's folder holds, read and checked: one row a job, one row a path and number of workers.

experiment.json                       what is the same for all of it
points/<id>/row.json                  a training job: weak-n002-r1, strong-n004-r3, perplexity-n002-r1
network/<path>-n<NNN>/row.json        allreduces of many sizes, nothing else
"""

from itertools import chain
from pathlib import Path
from typing import Dict, List, Literal, NamedTuple, Optional, Sequence, Tuple

from pydantic import FiniteFloat, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.records import Record, _damaged, read_row

State = Literal["finished", "failed"]


class Experiment(Record):
    """What all jobs of a folder have in common.

    Attributes:
        streams: of one worker under weak scaling, of the whole job under strong scaling.
        parameters: numbers in the model.
        steps, epochs: optimizer updates an epoch, and epochs of a job that is timed.
        warm_up: the first epochs, which are not counted.
        flags: what jobs/train.py got besides.
        launcher: what started the workers, in words.
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
    """Of a timed job, after the warm-up; chars_per_sec is of all its workers together."""

    chars_per_sec: PositiveFloat
    steps: PositiveInt


class Times(Record):
    """Where one worker's time of one step went, seconds.

    Attributes:
        data: cutting the window.
        compute: forward and backward.
        wait: from there until the slowest worker has arrived.
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
    """What a row of either kind says of the job that made it; `status` and `message` are of one that failed."""

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
        repeat: from 1.
        cores, devices: of all workers together.
        bytes: of the gradients on the wire.
        target, reached, chars, train_seconds: of a "perplexity" job: what was aimed at, whether it was reached, and
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
        """Of all workers together, over all epochs that count."""
        steps = sum(epoch.steps for epoch in self.epochs)
        return steps / sum(epoch.steps / epoch.chars_per_sec for epoch in self.epochs)


class Size(Record):
    """Seconds of each allreduce of so many bytes, the mean over the ranks."""

    bytes: PositiveInt
    seconds: Tuple[PositiveFloat, ...]


class Network(_Job):
    """Allreduces over a path: Horovod's over MPI or Gloo, or MPI's own without Horovod."""

    path: Literal["horovod-mpi", "horovod-gloo", "mpi"]
    sizes: Tuple[Size, ...] = ()


class Rows(NamedTuple):
    """All of a folder.

    Attributes:
        mixed: how its rows differ in what should be the same; empty where they do not.
        unfinished: folders of jobs that have no row: interrupted, or running now.
    """

    experiment: Experiment
    points: List[Point]
    network: List[Network]
    mixed: List[str]
    unfinished: List[str]

    def finished(self, *modes: str) -> List[Point]:
        """Training jobs of these modes that came to their end."""
        return [point for point in self.points if point.mode in modes and point.state == "finished"]


def read(folder: Path, allow_mixed: bool) -> Rows:
    """Everything that was measured into a folder so far.

    Raises:
        UserError: where it is no experiment, holds nothing yet, has a damaged file, or rows of another machine or
            program than the rest and not `allow_mixed`.
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
    """A finished job has what its mode is about."""
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
    """In what finished jobs differ that should not; of one that failed no number is used."""
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
