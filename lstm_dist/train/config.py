"""The typed configuration of a run: defaults < `--config FILE.toml` < command line; validated when parsed.

Each field is one flag, one key of the file and one entry of `--help`. pydantic checks types and ranges; its errors are
reported in terms of the flag.
"""

import argparse
import dataclasses
import json
import math
import os
import re
import sys
import unicodedata
from pathlib import Path
from typing import Any, Dict, List, Mapping, Optional, Sequence

from pydantic import ConfigDict, Field, ValidationError, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from pydantic.fields import FieldInfo
from typing_extensions import Literal

from lstm_dist.cli import TeachingParser, _suggestion
from lstm_dist.errors import ExitStatus, UserError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib


_SWITCHES = ("tensorboard", "overwrite", "resume", "auto_resume")
_MAX_TOML = 2**20  # bytes of a --config file: refuses files that are not settings before they are read in full
_EPOCHS = re.compile(r"([1-9][0-9]{0,8})epochs?")
_TIME = re.compile(r"([0-9]{1,9}(?:\.[0-9]{1,9})?)([smh])")


def _seconds(text: str) -> float:
    """Return the seconds of a time such as 90s, 5m or 23.5h; 0 for anything else."""
    match = _TIME.fullmatch(text)
    return float(match[1]) * {"s": 1, "m": 60, "h": 3600}[match[2]] if match else 0.0


def _field(group: str, default: Any, description: str, **limits: Any) -> Any:
    return Field(default, title=group, description=description, **limits)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", validate_default=True))
class RunConfig:
    """All settings of a run. The defaults are the D2L chapter's hyperparameters on the packaged corpus."""

    corpus: Optional[Path] = _field(
        "text",
        None,
        "a UTF-8 text file, a .zip that holds one .txt file, a .gz, or a folder of any size that jobs/prepare.py made; "
        "without it, the packaged songs",
    )
    max_chars: Optional[int] = _field(
        "text",
        None,
        "train on the first so many characters; 0 keeps them all. Without it, 20,000 as in the document, or all that "
        "jobs/prepare.py prepared",
        ge=0,
    )
    max_corpus_bytes: int = _field(
        "text", 256 * 2**20, "refuse a corpus that expands to more bytes than this (a zip may claim anything)", ge=1
    )
    valid_fraction: float = _field(
        "text",
        0.0,
        "hold this part of the text out, at its end: it is not trained on, and the perplexity on it is told; 0 holds "
        "none out",
        ge=0,
        lt=1,
        allow_inf_nan=False,
    )
    sampling: Literal["consecutive", "random"] = _field(
        "text",
        "consecutive",
        "consecutive: window t+1 of a stream continues window t; random: windows in a new order every epoch",
    )
    state_reset: Optional[Literal["epoch", "window"]] = _field(
        "text",
        None,
        "zero the LSTM's state at the start of every epoch (the default of consecutive) or of every window (of random)",
    )
    seq_len: int = _field(
        "text", 35, "characters in a window: how far back-propagation through time reaches", ge=1, le=10_000
    )
    global_batch_size: Optional[int] = _field(
        "text",
        None,
        "streams in the whole job, shared out to the workers; a property of the experiment, not of the launcher "
        "(32 if neither this nor --batch-size-per-worker is given)",
        ge=1,
        le=2**20,
    )
    batch_size_per_worker: Optional[int] = _field(
        "text",
        None,
        "streams of each worker instead: the job has this many times the number of workers",
        ge=1,
        le=2**20,
    )
    hidden_size: int = _field("model", 256, "width of the LSTM's state", ge=1, le=16_384)
    layers: int = _field("model", 1, "LSTMs one above the other; the document has one", ge=1, le=16)
    init: Optional[Path] = _field(
        "model", None, "start from the weights of this .safetensors file instead of seeded random ones"
    )
    epochs: int = _field("optimization", 200, "passes over the text", ge=1, le=10**9)
    until_perplexity: Optional[float] = _field(
        "optimization", None, "end with the first epoch whose perplexity is at most this", gt=1, allow_inf_nan=False
    )
    learning_rate: float = _field("optimization", 0.1, "SGD step size", gt=0, allow_inf_nan=False)
    learning_rate_schedule: Literal["constant", "step", "cosine"] = _field(
        "optimization",
        "constant",
        "step multiplies the step size by the decay factor after every so many decay epochs; cosine lets it fall to "
        "that part of itself within them",
    )
    warm_up_steps: int = _field(
        "optimization",
        0,
        "steps in which the step size rises to the learning rate before it falls",
        ge=0,
        le=10**9,
    )
    decay_epochs: Optional[int] = _field(
        "optimization", None, "of the schedules step and cosine; without it, all epochs", ge=1, le=10**9
    )
    decay_factor: float = _field(
        "optimization", 0.1, "of the schedules step and cosine", ge=0, le=1, allow_inf_nan=False
    )
    max_norm: float = _field(
        "optimization", 5.0, "clip the averaged gradient to this global norm (theta)", gt=0, allow_inf_nan=False
    )
    reference_batch_size: int = _field(
        "optimization",
        32,
        "the batch size at which --learning-rate and --max-norm were tuned: gradients are scaled by this over the "
        "global batch size, so that they mean the same at any batch size",
        ge=1,
        le=2**20,
    )
    seed: int = _field("optimization", 0, "of the initial weights and of the random sampling's order", ge=0, lt=2**63)
    device: Literal["auto", "cpu", "gpu"] = _field(
        "run", "auto", "auto takes the GPU of this worker's local rank where there is one"
    )
    wire_dtype: Literal["float32", "float16"] = _field(
        "run",
        "float32",
        "how gradients travel between workers: float16 halves the bytes for slow networks, and rounds them",
    )
    run_dir: Optional[Path] = _field("run", None, "where everything is written; without it, a new folder under runs/")
    overwrite: bool = _field("run", False, "replace the run that --run-dir already holds")
    resume: bool = _field(
        "run",
        False,
        "go on with the run that --run-dir holds, from its last checkpoint; what is not given stays as it was, and "
        "what decides the result cannot be changed",
    )
    auto_resume: bool = _field(
        "run",
        False,
        "for a command that is given again and again, as Slurm does: as --resume where --run-dir holds a checkpoint, "
        "else begin, over what a run without one has left; --init and --overwrite are for the beginning",
    )
    checkpoint_every: str = _field(
        "run", "60s", "time or epochs between two checkpoints, as 60s, 5m, 1epoch or 10epochs; the end always makes one"
    )
    time_limit: Optional[str] = _field(
        "run",
        None,
        "stop and make a checkpoint in time to end within this, as 55m or 23.5h; then the status is 75",
    )
    stall_timeout: float = _field(
        "run",
        300.0,
        "seconds without a step after which a worker ends itself and with it the job (three times as long around "
        "samples and checkpoints)",
        ge=1,
        le=10**6,
    )
    eval_every: int = _field("run", 1, "epochs between two readings of what --valid-fraction holds out", ge=1, le=10**9)
    log_every: int = _field("run", 20, "epochs between two lines with samples (metrics.jsonl has every epoch)", ge=1)
    prefix: Optional[List[str]] = _field(
        "run",
        None,
        "continue this text in every sample; repeatable. Without it, the document's three (分开, 不分开, "
        "战争中部队), or the beginnings of the corpus's first lines where their characters are missing",
    )
    sample_length: int = _field("run", 100, "new characters in every sample", ge=1, le=100_000)
    tensorboard: bool = _field(
        "run", False, "also write event files into the run directory; needs the extra of that name"
    )
    time_every: int = _field(
        "run",
        0,
        "of so many steps, take one apart: what cutting the window, computing, waiting for the slowest worker, the "
        "exchange and the update took on every worker goes into times.jsonl; 0 takes none apart",
        ge=0,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_truth_for_a_number(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and info.field_name not in _SWITCHES:
            raise ValueError("Input should not be a truth value")
        return value

    @field_validator("corpus", "init", "run_dir")
    @classmethod
    def _no_control_character(cls, value: Optional[Path]) -> Optional[Path]:
        if any(unicodedata.category(character) == "Cc" for character in str(value or "")):
            raise ValueError("Input should not hold a null byte, a line end or another control character")
        return value

    @field_validator("prefix")
    @classmethod
    def _no_empty_prefix(cls, value: Optional[List[str]]) -> Optional[List[str]]:
        if value is not None and "" in value:
            raise ValueError("Input should have at least one character")
        return value

    @field_validator("batch_size_per_worker")
    @classmethod
    def _one_batch_size(cls, value: Optional[int], info: ValidationInfo) -> Optional[int]:
        if value is not None and info.data.get("global_batch_size") is not None:
            raise ValueError("give this or --global-batch-size, not both")
        return value

    @field_validator("checkpoint_every")
    @classmethod
    def _time_or_epochs(cls, value: str) -> str:
        if not _EPOCHS.fullmatch(value) and not _seconds(value):
            raise ValueError("Input should be a time or a number of epochs, such as 60s, 5m, 1epoch or 10epochs")
        return value

    @field_validator("time_limit")
    @classmethod
    def _time(cls, value: Optional[str]) -> Optional[str]:
        if value is not None and not _seconds(value):
            raise ValueError("Input should be a time, such as 90s, 55m or 23.5h")
        return value

    @field_validator("resume")
    @classmethod
    def _resume_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("overwrite"):
            raise ValueError("give this or --overwrite, not both")
        if value and info.data.get("run_dir") is None:
            raise ValueError("name the run to go on with, by --run-dir")
        if value and info.data.get("init") is not None:
            raise ValueError("give this or --init, not both")
        return value

    @field_validator("auto_resume")
    @classmethod
    def _auto_resume_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("run_dir") is None:
            raise ValueError("name the run to begin or to go on with, by --run-dir")
        return value

    @property
    def checkpoint_seconds(self) -> float:
        """Return the seconds between two checkpoints; 0 if the interval is in epochs."""
        return _seconds(self.checkpoint_every)

    @property
    def checkpoint_epochs(self) -> int:
        """Return the epochs between two checkpoints; 0 if the interval is in seconds."""
        match = _EPOCHS.fullmatch(self.checkpoint_every)
        return int(match[1]) if match else 0

    def deadline(self, began: float) -> float:
        """Return when a process started at `began` must stop to end within --time-limit; infinite without a limit."""
        limit = self.time_limit_seconds
        return began + limit - min(30.0, limit / 10)

    @property
    def time_limit_seconds(self) -> float:
        """Return --time-limit in seconds; infinite if not given."""
        return math.inf if self.time_limit is None else _seconds(self.time_limit)

    @property
    def kept_chars(self) -> int:
        """Return the number of characters of the corpus to use; 0 means all."""
        if self.max_chars is not None:
            return self.max_chars
        return 0 if self.corpus is not None and os.path.isdir(self.corpus) else 20_000

    def streams(self, size: int) -> int:
        """Return B, the number of streams in the whole job of `size` workers."""
        if self.batch_size_per_worker is not None:
            return self.batch_size_per_worker * size
        return self.global_batch_size or 32

    @property
    def resets_every_window(self) -> bool:
        """Return whether the LSTM's state is zeroed before every window, not only at the start of an epoch."""
        default = "window" if self.sampling == "random" else "epoch"
        return (self.state_reset or default) == "window"

    def to_json(self) -> Dict[str, Any]:
        """Return the fields as JSON values, with paths as text."""
        return {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(self).items()}

    def facts(self) -> Dict[str, str]:
        """Return every field as text; equal on two ranks if and only if their configurations are equal."""
        return {k: _shown(v) for k, v in self.to_json().items()}

    def resolved(self, size: int, prefixes: Sequence[str]) -> Dict[str, Any]:
        """Return the fields with their defaults resolved for `size` workers and the corpus, to reproduce the run."""
        return {
            **self.to_json(),
            "corpus": None if self.corpus is None else str(self.corpus.resolve()),
            "max_chars": self.kept_chars,
            "global_batch_size": self.streams(size),
            "batch_size_per_worker": None,
            "state_reset": "window" if self.resets_every_window else "epoch",
            "decay_epochs": self.decay_epochs or (None if self.learning_rate_schedule == "constant" else self.epochs),
            "prefix": list(prefixes),
        }


# Fields that may change on resume: except for the number of epochs, none that the weights depend on. The corpus is
# compared by content, not by name.
_MAY_CHANGE = frozenset(
    "corpus max_corpus_bytes init epochs until_perplexity device run_dir overwrite resume auto_resume checkpoint_every "
    "time_limit stall_timeout eval_every log_every prefix sample_length tensorboard time_every".split()
)


def require_same_run(then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Check that a run is resumed with the settings that determine its result.

    Args:
        then: `resolved` when the run was started.
        now: `resolved` of the current command.

    Raises:
        UserError: naming every field that differs, with both values.
    """
    # A run from before a field was added behaved like the field's default.
    then = {**{k: field.default for k, field in FIELDS.items()}, **then}
    keys = [k for k in {**then, **now} if k not in _MAY_CHANGE and then.get(k) != now.get(k)]
    if keys:
        changes = {k: f"{_flag(k)} was {_shown(then.get(k))} and is {_shown(now.get(k))}" for k in keys}
        if "corpus_sha256" in changes:
            changes["corpus_sha256"] = "--corpus is another text, or that one prepared and then plain"
        shown = ", ".join(changes.values())
        raise UserError(
            f"--resume: {shown}: leave {'it' if len(keys) == 1 else 'them'} as in that run, or start another",
            ExitStatus.BAD_CONFIG,
        )


_BEGINNING = ("init", "overwrite")
_BATCH_SIZES = ("global_batch_size", "batch_size_per_worker")

FIELDS: Dict[str, FieldInfo] = RunConfig.__pydantic_fields__  # type: ignore[attr-defined]


def parse_config(argv: Optional[Sequence[str]] = None, base: Optional[Mapping[str, Any]] = None) -> RunConfig:
    """Parse a command line: flags override its `--config` file, which overrides the defaults.

    Args:
        argv: the command line, by default this program's.
        base: values that replace the defaults: those of the resumed run.

    Raises:
        UserError: naming the flag or the file's key, if it is unknown or its value invalid.
        SystemExit: after `--help`.
    """
    given = vars(_parser().parse(argv))
    file = given.pop("config", None)
    values: Dict[str, Any] = {}
    of_file = _read_toml(file) if file else {}
    if base is not None and ({**of_file, **given}).get("auto_resume"):
        given = {**{key: value for key, value in given.items() if key not in _BEGINNING}, "resume": True}
    if given.get("resume"):  # settings for the start of a run do not apply to a resumed one
        of_file = {key: value for key, value in of_file.items() if key not in _BEGINNING}
    for layer in (base or {}, of_file, given):
        if not set(layer).isdisjoint(_BATCH_SIZES):
            # Both set the batch size, so either one overrides whichever a lower layer gave.
            values = {key: value for key, value in values.items() if key not in _BATCH_SIZES}
        values.update(layer)
    try:
        return RunConfig(**values)
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0])
        where = f" (in {file})" if file and name not in given else ""
        message = first["msg"].replace("Value error, ", "").replace("Input should", "should")
        status = ExitStatus.BAD_CONFIG if where else ExitStatus.USAGE
        is_switch = isinstance(FIELDS[name].default, bool) and values.get(name) is True
        given_as = _flag(name) if is_switch else f"{_flag(name)} {_shown(values.get(name))}"
        raise UserError(f"{given_as}: {message}{where}", status) from None


def _parser() -> TeachingParser:
    parser = TeachingParser(
        prog="jobs/train.py",
        description=(
            "Train the hand-written LSTM. Alone this is one worker; under `horovodrun -np N`, `mpirun -np N` or `srun` "
            "the same command is N workers that share the streams of one batch."
        ),
        epilog="Every flag may also stand in the --config file, with underscores: `hidden_size = 512`.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config", type=Path, metavar="FILE.toml", help="read settings from this file; flags given here win"
    )
    groups: Dict[str, Any] = {}
    for name, field in FIELDS.items():
        group = str(field.title)
        groups.setdefault(group, parser.add_argument_group(group) if group not in groups else None)
        default = "" if field.default in (None, False) else f" (default {field.default})"
        # Escape percent signs, which argparse would read as a format.
        text = (str(field.description) + default).replace("%", "%%")
        if field.annotation is bool:
            groups[group].add_argument(_flag(name), action="store_true", help=text)
        else:
            action = "append" if "List" in str(field.annotation) else "store"
            groups[group].add_argument(_flag(name), action=action, metavar=_metavar(field.annotation), help=text)
    return parser


def _read_toml(path: Path) -> Dict[str, Any]:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_TOML + 1)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    if len(data) > _MAX_TOML:
        raise UserError(
            f"--config {path}: has more than {_MAX_TOML:,} bytes, give settings only", ExitStatus.BAD_CONFIG
        )
    try:
        values = tomllib.loads(data.decode("utf-8"))
    except (ValueError, RecursionError) as error:  # invalid TOML, invalid UTF-8, or too deeply nested
        raise UserError(f"--config {path}: is not TOML ({error})", ExitStatus.BAD_CONFIG) from None
    for key in values:
        if key not in FIELDS:
            raise UserError(f"--config {path}: unknown key {key!r}{_suggestion(key, FIELDS)}", ExitStatus.BAD_CONFIG)
    return values


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _metavar(annotation: Any) -> str:
    text = str(annotation)
    if "Literal" in text:
        return text[text.index("Literal[") + 8 : text.index("]")].replace("'", "").replace(", ", "|")
    for kind, word in (("Path", "PATH"), ("float", "X"), ("int", "N")):
        if kind in text:
            return word
    return "TEXT"


def _shown(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, default=str)
