"""The settings common to all points of an experiment, and the folder that stores them and the rows."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.data.token_dataset import load
from lstm_dist.errors import UserError
from lstm_dist.experiments.folder import settle, write_json
from lstm_dist.model.control_flags import FLAGS
from lstm_dist.model.parameters import number_of_parameters
from lstm_dist.scaling.point import Point
from lstm_dist.train.config import RunConfig


class Target(NamedTuple):
    """Target perplexity of the points of mode perplexity, and the maximum number of epochs."""

    perplexity: float
    max_epochs: int


class Experiment(NamedTuple):
    """The settings of every point.

    Attributes:
        streams: of a single worker.
        seq_len, hidden_size, layers, vocab_size: model sizes.
        parameters: number of model parameters.
        bytes: gradient bytes that a worker sends per step.
        steps: steps per epoch for any number of workers, as the text grows with the streams.
        epochs: epochs per point.
        warm_up: initial epochs that are not counted.
        time_every: one of this many steps is profiled.
        threads: OpenMP threads per worker.
        flags: further flags of jobs/train.py.
        launcher: description of the launcher.
    """

    streams: int
    seq_len: int
    hidden_size: int
    layers: int
    vocab_size: int
    parameters: int
    bytes: int
    steps: int
    epochs: int
    warm_up: int
    time_every: int
    threads: int
    flags: List[str]
    launcher: str

    def train_flags(self, point: Point, corpus: Path, target: Target) -> List[str]:
        """Return the flags of jobs/train.py for one point; `corpus` is the file from `write_corpus`."""
        flags = [*self.flags, f"--global-batch-size={point.streams}", "--checkpoint-every=1h", "--sample-length=1"]
        if point.mode == "perplexity":
            return [
                *flags, f"--until-perplexity={target.perplexity:g}", f"--epochs={target.max_epochs}",
                f"--log-every={target.max_epochs}", f"--seed={point.repeat - 1}",
            ]  # fmt: skip
        chars = text_length(point.streams, self.steps, self.seq_len)
        return [
            *flags, f"--corpus={corpus}", f"--max-chars={chars}", f"--epochs={self.epochs}",
            f"--log-every={self.epochs}", f"--time-every={self.time_every}",
        ]  # fmt: skip


def model_facts(settings: RunConfig, vocab_size: int) -> Dict[str, int]:
    """Return the sizes of the model that these settings train with this vocabulary size."""
    parameters = number_of_parameters(vocab_size, settings.hidden_size, settings.layers)
    width = {"float32": 4, "float16": 2}[settings.wire_dtype]
    return {
        "seq_len": settings.seq_len, "hidden_size": settings.hidden_size, "vocab_size": vocab_size,
        "layers": settings.layers, "parameters": parameters, "bytes": width * (parameters + FLAGS),
    }  # fmt: skip


def text_length(streams: int, steps: int, seq_len: int) -> int:
    """Return the number of characters that gives each of `streams` streams `steps` windows."""
    return streams * (steps * seq_len + 1)


def base_text(settings: RunConfig, streams: int, steps: int) -> str:
    """Return one worker's text: the beginning of the training corpus, repeated if it is too short."""
    chars = text_length(streams, steps, settings.seq_len)
    text = load(settings.corpus, chars, settings.max_corpus_bytes).text
    return (text * (chars // len(text) + 1))[:chars]


class Folder:
    """An experiment on disk: `experiment.json`, and a row and a run for every measured point."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, experiment: Experiment) -> None:
        """Create or continue this experiment.

        Raises:
            UserError: if the folder holds another experiment or other files.
        """
        usual = {"layers": 1}  # folders written before the setting existed
        settle(self.path / "experiment.json", experiment._asdict(), "another experiment,", usual)

    def rows(self, kind: str) -> Dict[str, Dict[str, Any]]:
        """Return the rows by name; `kind` is points or network."""
        files = sorted(self.path.glob(f"{kind}/*/row.json"))
        return {file.parent.name: json.loads(file.read_bytes()) for file in files}

    def keep(self, kind: str, row: Dict[str, Any]) -> None:
        """Store a row."""
        place = self.path / kind / row["id"]
        place.mkdir(parents=True, exist_ok=True)  # a job that failed to start has no folder
        write_json(place / "row.json", row)

    def require_target(self, perplexity: float) -> None:
        """Raise UserError if the folder has points with another target perplexity."""
        for row in self.rows("points").values():
            if row.get("target", perplexity) != perplexity:
                raise UserError(
                    f"--to-perplexity {perplexity:g}: {row['id']} was trained down to {row['target']:g}: give another "
                    "--out folder"
                )

    def forget(self, kind: str, names: Sequence[str]) -> None:
        """Delete the rows of jobs that will be measured again."""
        for name in names:
            file = self.path / kind / name / "row.json"
            if file.exists():
                file.unlink()

    def write_corpus(self, text: str, times: int) -> Path:
        """Write the corpus of the timed points, `text` repeated `times` times, unless it exists; return its path."""
        file = self.path / "corpus.txt"
        if not file.exists() or file.stat().st_size != len(text.encode()) * times:
            partial = file.with_suffix(".partial")
            partial.write_text(text * times, encoding="utf-8")
            os.replace(partial, file)
        return file.resolve()
