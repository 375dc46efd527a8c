"""Read and validate the records of a scaling experiment: its settings, and one row per job.

experiment.json                       settings common to all jobs
corpus.txt                            the text of the timed jobs
points/<id>/row.json                  a training job: weak-n002-r1, strong-n004-r3, perplexity-n002-r1
network/<path>-n<NNN>/row.json        a job that only runs allreduces, of many sizes
"""

import re
from pathlib import Path
from typing import Dict, List, Literal, Mapping, NamedTuple, Optional, Sequence, Tuple

from pydantic import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.experiments.records import Record, damaged_file, read_row
from lstm_dist.scaling.variation import ITEM_SIZES, Controller, Variation, WireDtype

State = Literal["finished", "failed"]

CORPUS = "corpus.txt"


class Experiment(Record):
    """Settings common to all jobs of a folder.

    Attributes:
        streams: number of streams of one worker under weak scaling, of the whole job under strong scaling.
        seq_len, hidden_size, layers, vocab_size: sizes of the model.
        parameters: number of model parameters.
        bytes: bytes of the gradients of all parameters, the most that a worker sends per step.
        steps: steps per epoch for any number of workers, as the text grows with the streams.
        epochs: epochs of a timed job.
        warm_up: number of initial epochs that are not counted.
        time_every: every Nth step is profiled.
        threads: OpenMP threads per worker.
        workers_per_node: most workers on a node; None if a node has as many as its slots.
        controller, wire_dtype: of all jobs that do not vary them; old folders have the controller in `launcher` only.
        flags: other flags of jobs/train.py.
        max_chars: characters of the corpus that jobs of mode perplexity use; 0 means all.
        launcher: description of the launcher.
    """

    streams: PositiveInt
    seq_len: PositiveInt
    hidden_size: PositiveInt
    layers: PositiveInt = 1
    vocab_size: PositiveInt
    parameters: PositiveInt
    bytes: PositiveInt
    steps: PositiveInt
    epochs: PositiveInt
    warm_up: NonNegativeInt
    time_every: NonNegativeInt
    threads: PositiveInt
    workers_per_node: Optional[PositiveInt] = None
    controller: Optional[Controller] = None
    wire_dtype: WireDtype = "float32"
    flags: Tuple[str, ...] = ()
    max_chars: NonNegativeInt = 20_000
    launcher: str

    def varied(self, varied: Variation) -> "Experiment":
        """Return the settings of jobs that differ in these."""
        ratio = ITEM_SIZES[varied.wire_dtype or self.wire_dtype] / ITEM_SIZES[self.wire_dtype]
        controller = varied.controller or self.controller or ("gloo" if "--gloo" in self.launcher else "mpi")
        launcher = re.sub(r"--(mpi|gloo)(?= )", f"--{controller}", self.launcher, count=1)
        changed = {**varied.given, "controller": controller, "launcher": launcher, "bytes": round(ratio * self.bytes)}
        return self.model_copy(update=changed)


class Measured(Record, allow_inf_nan=False):
    """A record whose numbers are finite."""


class EpochThroughput(Measured):
    """One epoch of a timed job after the warm-up; chars_per_sec is the total of all its workers."""

    chars_per_sec: PositiveFloat
    steps: PositiveInt


class StepProfile(Measured):
    """Seconds that one worker spent in the parts of one step; run.step_times.StepTimes defines the parts.

    Attributes:
        bytes: bytes that it sent; None in folders from before this was recorded.
    """

    step: NonNegativeInt
    rank: NonNegativeInt
    host: str
    bytes: Optional[PositiveInt] = None
    data: NonNegativeFloat
    compute: NonNegativeFloat
    wait: NonNegativeFloat
    wire: NonNegativeFloat
    update: NonNegativeFloat


class Energy(Measured):
    """The energy that a training job used.

    Attributes:
        joules: of `chars` characters; None if it is unknown.
        source: where it comes from, or why it is unknown.
        chars: characters of the counted epochs, or of the whole job if only its energy is known.
        job_chars: characters of the whole job.
    """

    joules: Optional[NonNegativeFloat] = None
    source: str = ""
    chars: PositiveInt
    job_chars: PositiveInt


class JobRow(Measured):
    """Fields common to both kinds of rows.

    Attributes:
        status, message: of a failure.
        seconds: of the launcher.
        workers_per_host: workers on the host with the most; 0 in folders from before this was recorded.
    """

    workers: PositiveInt
    state: State
    status: int = 0
    message: str = ""
    seconds: NonNegativeFloat = 0.0
    machine: str
    commit: str
    code: str
    hosts: NonNegativeInt
    workers_per_host: NonNegativeInt = 0
    oversubscribed: bool

    @property
    def per_host(self) -> int:
        """Return the workers on the host with the most; if not recorded, as if they were distributed evenly."""
        return self.workers_per_host or -(-self.workers // max(1, self.hosts))


class TrainRow(JobRow):
    """The result of a training job.

    Attributes:
        streams: number of streams of the whole job.
        repeat: number of the repetition, from 1.
        varied: settings in which it differs from its experiment.
        cores, devices: cores and devices of all workers together.
        bytes: bytes that a worker sends per step: the median of the timed steps, or Experiment.bytes if unknown.
        times: timed steps.
        target, reached, chars, train_seconds: of a job of mode perplexity: the target perplexity, whether it was
            reached, and the characters and seconds of training until then.
        energy: None in folders from before it was recorded.
    """

    id: str
    mode: Literal["weak", "strong", "perplexity"]
    streams: PositiveInt
    repeat: PositiveInt
    varied: Variation = Variation()
    command: str
    cores: NonNegativeInt = 0
    devices: Tuple[str, ...] = ()
    bytes: NonNegativeInt = 0
    epochs: Tuple[EpochThroughput, ...] = ()
    times: Tuple[StepProfile, ...] = ()
    target: Optional[float] = None
    reached: bool = False
    chars: Optional[PositiveInt] = None
    train_seconds: Optional[PositiveFloat] = None
    energy: Optional[Energy] = None

    @property
    def chars_per_sec(self) -> float:
        """Return the throughput of all workers together over all counted epochs."""
        steps = sum(epoch.steps for epoch in self.epochs)
        return steps / sum(epoch.steps / epoch.chars_per_sec for epoch in self.epochs)


class AllreduceTimes(Measured):
    """Seconds of each allreduce of this many bytes, averaged over the ranks."""

    bytes: PositiveInt
    seconds: Tuple[PositiveFloat, ...]


class AllreduceRow(JobRow):
    """The result of a job that ran allreduces over one path: Horovod over MPI or Gloo, or plain MPI."""

    path: Literal["horovod-mpi", "horovod-gloo", "mpi"]
    sizes: Tuple[AllreduceTimes, ...] = ()


class Rows(NamedTuple):
    """All rows of a folder, or those of one series: jobs that differ only in mode, number of workers and streams.

    Attributes:
        corpus: the text of the timed jobs; the file may be missing.
        inconsistencies: differences in machine or program between rows.
        unfinished: folders of jobs without a row, interrupted or still running.
        series: what tells a series apart, in words; empty for the only one.
        on_several_hosts: whether a job of the folder ran on several hosts.
    """

    experiment: Experiment
    corpus: Path
    train_rows: List[TrainRow]
    allreduce_rows: List[AllreduceRow]
    inconsistencies: List[str]
    unfinished: List[str]
    series: str = ""
    on_several_hosts: bool = False

    def finished(self, modes: Sequence[str]) -> List[TrainRow]:
        """Return the finished training jobs of these modes."""
        return [row for row in self.train_rows if row.mode in modes and row.state == "finished"]

    def failed(self, modes: Sequence[str]) -> List[TrainRow]:
        """Return the failed training jobs of these modes."""
        return [row for row in self.train_rows if row.mode in modes and row.state == "failed"]


def read_rows(folder: Path, allow_mixed: bool) -> Rows:
    """Read all rows of a folder.

    Raises:
        UserError: if the folder is not an experiment, has no rows yet, has an invalid file, or mixes rows of several
            machines or programs without `allow_mixed`.
    """
    file = folder / "experiment.json"
    if not file.is_file():
        reason = "has no experiment.json" if folder.is_dir() else "no such folder"
        raise UserError(
            f"{folder}: {reason}; give the --out of jobs/scale.py, or the directory of a run", ExitStatus.NO_INPUT
        )
    job_folders = sorted(path for path in folder.glob("points/*") if path.is_dir())
    trained = {path: read_row(path / "row.json", TrainRow) for path in job_folders if (path / "row.json").is_file()}
    allreduced = {path.parent: read_row(path, AllreduceRow) for path in sorted(folder.glob("network/*/row.json"))}
    if not trained and not allreduced:
        raise UserError(f"{folder}: has no results yet; run jobs/scale.py --out {folder}", ExitStatus.NO_INPUT)
    for path, row in trained.items():
        _require_results(path / "row.json", row)
    for path, times in allreduced.items():
        if times.state == "finished" and not (times.sizes and all(size.seconds for size in times.sizes)):
            raise damaged_file(path / "row.json", "finished, but without times")
    inconsistencies = _inconsistencies({**trained, **allreduced})
    if inconsistencies and not allow_mixed:
        raise UserError(f"{folder}: {inconsistencies[0]}; measure again, or give --allow-mixed", ExitStatus.BAD_DATA)
    unfinished = [path.name for path in job_folders if path not in trained]
    experiment = read_row(file, Experiment)
    jobs = list(trained.values()), list(allreduced.values())
    return Rows(experiment, folder / CORPUS, *jobs, inconsistencies, unfinished)


def _require_results(path: Path, row: TrainRow) -> None:
    """Check that a finished job has the results that its mode requires."""
    if row.state == "failed":
        return
    if row.times and not sum(profile.compute for profile in row.times):
        raise damaged_file(path, "times: compute is 0 in all of them")
    if row.mode == "perplexity":
        if row.target is None or row.chars is None or row.train_seconds is None:
            raise damaged_file(path, "finished, but without target, chars or train_seconds")
    elif not row.epochs:
        raise damaged_file(path, "finished, but without epochs")


def _inconsistencies(rows: Mapping[Path, JobRow]) -> List[str]:
    """Return the differences between finished jobs; failed jobs are skipped, as their results are not used."""
    finished = [(path, row) for path, row in rows.items() if row.state == "finished"]
    return [text for field in ("machine", "commit", "code") for text in _difference(field, finished)]


def _difference(field: str, rows: Sequence[Tuple[Path, JobRow]]) -> List[str]:
    """Return one line if the field has more than one value."""
    first: Dict[str, str] = {}
    for path, row in rows:
        first.setdefault(getattr(row, field), path.name)
    if len(first) < 2:
        return []
    (value, job), (other_value, other_job) = list(first.items())[:2]
    return [f"{job} and {other_job} differ in {field}: {value or 'unknown'} and {other_value or 'unknown'}"]
