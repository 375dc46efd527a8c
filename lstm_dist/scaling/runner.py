"""What all points of an experiment have in common, and the folder that keeps it and their rows."""

import json
import os
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

from lstm_dist.data.token_dataset import load
from lstm_dist.errors import UserError
from lstm_dist.experiments.folder import settle, write_json
from lstm_dist.model.parameters import VOTES, number_of_parameters
from lstm_dist.scaling.point import Point
from lstm_dist.train.config import RunConfig


class Target(NamedTuple):
    """How good the points of mode perplexity have to become, within how many epochs."""

    perplexity: float
    max_epochs: int


class Experiment(NamedTuple):
    """The settings of every point.

    Attributes:
        streams: of one worker alone.
        seq_len, hidden_size, layers, vocab_size: of the model.
        parameters: how many the model has.
        bytes: that a worker sends of them in a step.
        steps: in an epoch, at any number of workers: the text grows with the streams.
        epochs: of a point.
        warm_up: how many of them are not counted.
        time_every: of so many steps one is taken apart.
        threads: OpenMP's, of a worker.
        flags: of jobs/train.py, beside those that follow from all this.
        launcher: how workers are started, in words.
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
        """The flags of jobs/train.py for one point; `corpus` is what `write_corpus` wrote."""
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
    """The sizes of the model that these settings train on a text of so many distinct characters."""
    parameters = number_of_parameters(vocab_size, settings.hidden_size, settings.layers)
    width = {"float32": 4, "float16": 2}[settings.wire_dtype]
    return {
        "seq_len": settings.seq_len, "hidden_size": settings.hidden_size, "vocab_size": vocab_size,
        "layers": settings.layers, "parameters": parameters, "bytes": width * (parameters + VOTES),
    }  # fmt: skip


def text_length(streams: int, steps: int, seq_len: int) -> int:
    """The characters of which so many streams have so many windows each."""
    return streams * (steps * seq_len + 1)


def base_text(settings: RunConfig, streams: int, steps: int) -> str:
    """The text of one worker: that which is trained on, from its beginning, again and again where it is too short."""
    chars = text_length(streams, steps, settings.seq_len)
    text = load(settings.corpus, chars, settings.max_corpus_bytes).text
    return (text * (chars // len(text) + 1))[:chars]


class Folder:
    """An experiment on disk: `experiment.json`, a row for every point that has been measured, and its run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def open(self, experiment: Experiment) -> None:
        """Begin, or go on with, this experiment.

        Raises:
            UserError: when the folder holds another, or something else.
        """
        usual = {"layers": 1}  # before that was thought of
        settle(self.path / "experiment.json", experiment._asdict(), "another experiment,", usual)

    def rows(self, kind: str) -> Dict[str, Dict[str, Any]]:
        """What was measured, by name: `kind` is points or network."""
        files = sorted(self.path.glob(f"{kind}/*/row.json"))
        return {file.parent.name: json.loads(file.read_bytes()) for file in files}

    def keep(self, kind: str, row: Dict[str, Any]) -> None:
        """A row that was measured."""
        place = self.path / kind / row["id"]
        place.mkdir(parents=True, exist_ok=True)  # of a job that never began there is none
        write_json(place / "row.json", row)

    def require_target(self, perplexity: float) -> None:
        """Refuse to mix points that were trained down to another perplexity with those of this one."""
        for row in self.rows("points").values():
            if row.get("target", perplexity) != perplexity:
                raise UserError(
                    f"--to-perplexity {perplexity:g}: {row['id']} was trained down to {row['target']:g}: give another "
                    "--out folder"
                )

    def forget(self, kind: str, names: Sequence[str]) -> None:
        """The rows of what is to be measured again."""
        for name in names:
            file = self.path / kind / name / "row.json"
            if file.exists():
                file.unlink()

    def write_corpus(self, text: str, times: int) -> Path:
        """The text of the timed points, so many times over; it is only written where it is not there."""
        file = self.path / "corpus.txt"
        if not file.exists() or file.stat().st_size != len(text.encode()) * times:
            partial = file.with_suffix(".partial")
            partial.write_text(text * times, encoding="utf-8")
            os.replace(partial, file)
        return file.resolve()
