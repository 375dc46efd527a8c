"""The typed configuration of a run; each field is one flag, one key of the --config file and one entry of `--help`."""

import dataclasses
import math
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from pydantic import ConfigDict, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass
from typing_extensions import Literal

from lstm_dist.cli import possible_path
from lstm_dist.encoding import NO_ENCODING, is_encoding
from lstm_dist.options import fields_of, option, shown
from lstm_dist.train.interval import NEVER, Intervals, interval_text, parse_interval, parse_seconds


def require_encoding(name: Optional[str]) -> Optional[str]:
    """Return the name of an encoding, or None; raise ValueError for another name."""
    if name is not None and not is_encoding(name):
        raise ValueError(NO_ENCODING)
    return name


def corpus_paths(value: Any) -> Any:
    """Return the value of --corpus as a list, None if it is not given; raise ValueError for names that no file has."""
    if value is None or isinstance(value, bool):
        return value
    paths = value if isinstance(value, (list, tuple)) else [value]
    if not paths:
        raise ValueError("Input should name a file or a folder")
    return [possible_path(path) if isinstance(path, str) else path for path in paths]


_text = partial(option, group="text", decides=True)
_model = partial(option, group="model", decides=True)
_optimization = partial(option, group="optimization", decides=True)
_run = partial(option, group="run", decides=False)


@dataclass(frozen=True, config=ConfigDict(extra="forbid", validate_default=True))
class RunConfig:
    """All settings of a run. The defaults are the D2L chapter's hyperparameters on the packaged corpus.

    A field that `decides` the result cannot change when a run is resumed; except for the number of epochs, the weights
    depend on no other. (The corpus is compared by content, not by name.) A field that is `inherited` keeps its value
    when a run is resumed without giving it.
    """

    corpus: Optional[List[Path]] = _text(
        None,
        "text file, also compressed or in an archive (zip, tar, gzip, bzip2, xz), folder of texts, or folder made by "
        "jobs/prepare.py; may be repeated for several texts (default: the packaged songs)",
        decides=False,
    )
    encoding: Optional[str] = _text(
        None,
        "encoding of the text, such as gb18030, big5, utf-16 or cp1252 (default: UTF-8, or UTF-16 or UTF-32 if it is "
        "in one of them)",
        metavar="NAME",
        decides=False,
    )
    keep_newlines: bool = _text(False, "keep line ends instead of replacing them by spaces")
    max_chars: Optional[int] = _text(
        None,
        "use only the first N characters, 0 for all (default: 20,000 of the packaged songs, as in the D2L chapter; all "
        "of another corpus)",
        ge=0,
    )
    max_corpus_bytes: int = _text(
        256 * 2**20, "refuse a corpus that decompresses to more bytes than this", decides=False, ge=1
    )
    valid_fraction: float = _text(
        0.0,
        "fraction of the text, taken from its end, used for validation (0 = none)",
        ge=0,
        lt=1,
        allow_inf_nan=False,
    )
    sampling: Literal["consecutive", "random"] = _text(
        "consecutive",
        "consecutive: window t+1 of a stream continues window t; random: windows in a new random order every epoch",
    )
    state_reset: Optional[Literal["epoch", "window"]] = _text(
        None,
        "zero the LSTM's state at the start of every epoch (default for consecutive sampling) or window (default for "
        "random sampling)",
    )
    seq_len: int = _text(
        35, "characters per window, the length of truncated back-propagation through time", ge=1, le=10_000
    )
    global_batch_size: Optional[int] = _text(
        None,
        "streams of the whole job, distributed to the workers; the result does not depend on their number (default 32)",
        ge=1,
        le=2**20,
    )
    batch_size_per_worker: Optional[int] = _text(
        None,
        "streams of each worker, in place of --global-batch-size: the batch grows with the number of workers",
        ge=1,
        le=2**20,
    )
    hidden_size: int = _model(256, "size of the LSTM's hidden state", ge=1, le=16_384)
    layers: int = _model(1, "number of stacked LSTM layers; the D2L chapter has one", ge=1, le=16)
    init: Optional[Path] = _model(
        None,
        "start from the weights in this .safetensors file, or from the last ones of this run, instead of random ones",
        decides=False,
        inherited=False,
    )
    epochs: int = _optimization(200, "passes over the text", decides=False, ge=1, le=10**9)
    until_perplexity: Optional[float] = _optimization(
        None, "stop after the first epoch with at most this perplexity", decides=False, gt=1, allow_inf_nan=False
    )
    learning_rate: float = _optimization(0.1, "SGD step size", gt=0, allow_inf_nan=False)
    learning_rate_schedule: Literal["constant", "step", "cosine"] = _optimization(
        "constant",
        "step: multiply by --decay-factor every --decay-epochs; cosine: anneal to --decay-factor x peak over "
        "--decay-epochs",
    )
    warm_up_steps: int = _optimization(
        0, "steps of linear increase to the learning rate, before the schedule begins", ge=0, le=10**9
    )
    decay_epochs: Optional[int] = _optimization(
        None, "epochs of the step and cosine schedules (default: --epochs)", ge=1, le=10**9
    )
    decay_factor: float = _optimization(0.1, "factor of the step and cosine schedules", ge=0, le=1, allow_inf_nan=False)
    max_norm: float = _optimization(
        5.0, "clip the averaged gradient to this global norm (theta)", gt=0, allow_inf_nan=False
    )
    reference_batch_size: int = _optimization(
        32,
        "batch size for which --learning-rate and --max-norm were tuned; gradients are scaled by its ratio to the "
        "global batch size",
        ge=1,
        le=2**20,
    )
    seed: int = _optimization(0, "seed of the initial weights and of random sampling", ge=0, lt=2**63)
    device: Literal["auto", "cpu", "gpu"] = _run(
        "auto", "auto: the GPU of this worker's local rank if there is one, else the CPU"
    )
    recurrence: Literal["auto", "persistent", "loop"] = _run(
        "auto",
        "how a GPU computes the recurrence; persistent: one kernel for all characters of a window, for hidden sizes "
        "that fit the GPU; loop: one product and one kernel for each character; auto: loop, because the persistent "
        "kernels have not yet been seen to compute on a GPU",
    )
    wire_dtype: Literal["float32", "float16"] = _run(
        "float32",
        "data type of gradients in communication; float16 halves the bytes, and rounds the gradients",
        decides=True,
    )
    run_dir: Optional[Path] = _run(None, "directory for all output (default: a new folder in runs/)", inherited=False)
    overwrite: bool = _run(False, "replace the run in --run-dir", inherited=False)
    resume: bool = _run(
        False,
        "resume the run in --run-dir from its last checkpoint; settings that are not given keep their values, and "
        "those that decide the result cannot change",
        inherited=False,
    )
    auto_resume: bool = _run(
        False,
        "resume if --run-dir has a checkpoint, else start a new run; meant for schedulers, which repeat the same "
        "command (--init and --overwrite then apply to the start only)",
        inherited=False,
    )
    dry_run: bool = _run(
        False,
        "resolve everything, show it, and end before the first step with status 0, without writing anything",
        inherited=False,
    )
    checkpoint_every: str = _run(
        "60s",
        "time, steps or epochs between two checkpoints, such as 60s, 5m, 500steps or 10epochs; the last step always "
        "gets one",
        metavar="INTERVAL",
    )
    time_limit: Optional[str] = _run(
        None,
        "stop with a checkpoint early enough to end within this time, such as 55m or 23.5h; the exit status is then 75",
        metavar="TIME",
        inherited=False,
    )
    stall_timeout: float = _run(
        300.0,
        "seconds without a finished step after which a worker ends itself and the job (three times as many for samples "
        "and checkpoints)",
        metavar="SECONDS",
        ge=1,
        le=10**6,
    )
    eval_every: str = _run(
        "1epoch",
        "epochs, steps or time between two evaluations on the validation set, such as 2epochs, 500steps or 10m; a "
        "plain number counts epochs",
        metavar="INTERVAL",
    )
    log_every: str = _run(
        "20epochs",
        "epochs, steps or time between two log lines, such as 20epochs, 500steps or 30s; a plain number counts epochs. "
        "The lines of epochs come with samples; metrics.jsonl has every line and every epoch",
        metavar="INTERVAL",
    )
    prefix: Optional[List[str]] = _run(
        None,
        "text to continue in every sample; may be repeated (default: 分开, 不分开 and 战争中部队 as in the D2L "
        "chapter, or the starts of the corpus's first lines if it lacks their characters)",
    )
    sample_length: int = _run(100, "new characters per sample", ge=1, le=100_000)
    tensorboard: bool = _run(
        False, "also write TensorBoard event files into the run directory (needs the extra tensorboard)"
    )
    time_every: int = _run(
        0,
        "time the parts of every Nth step (0 = off): the log line names the slowest worker, times.jsonl has the rest",
        ge=0,
    )

    @field_validator("*", mode="before")
    @classmethod
    def _no_boolean_for_another_type(cls, value: Any, info: ValidationInfo) -> Any:
        if isinstance(value, bool) and FIELDS[str(info.field_name)].annotation is not bool:
            raise ValueError("Input should not be a boolean")
        return value

    _one_or_several = field_validator("corpus", mode="before")(corpus_paths)

    @field_validator("init", "run_dir", mode="before")
    @classmethod
    def _possible_path(cls, value: Any) -> Any:
        return possible_path(value) if isinstance(value, str) else value

    _is_encoding = field_validator("encoding")(require_encoding)

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

    @field_validator("checkpoint_every", "eval_every", "log_every", mode="before")
    @classmethod
    def _interval(cls, value: Any, info: ValidationInfo) -> Any:
        # A number of epochs was never written without unit for checkpoints, where it would be mistaken for seconds.
        return interval_text(value, numbers_are_epochs=info.field_name != "checkpoint_every")

    @field_validator("time_limit")
    @classmethod
    def _time(cls, value: Optional[str]) -> Optional[str]:
        if value is not None and not parse_seconds(value):
            raise ValueError("Input should be a time, such as 90s, 55m or 23.5h")
        return value

    @field_validator("resume")
    @classmethod
    def _resume_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("overwrite"):
            raise ValueError("give this or --overwrite, not both")
        if value and info.data.get("run_dir") is None:
            raise ValueError("name the run to resume with --run-dir")
        if value and info.data.get("init") is not None:
            raise ValueError("give this or --init, not both")
        return value

    @field_validator("auto_resume")
    @classmethod
    def _auto_resume_what(cls, value: bool, info: ValidationInfo) -> bool:
        if value and info.data.get("run_dir") is None:
            raise ValueError("name the run to start or resume with --run-dir")
        return value

    @property
    def every(self) -> Intervals:
        """Return how often the run reports, evaluates (never without validation set) and writes a checkpoint."""
        evaluation = parse_interval(self.eval_every) if self.valid_fraction else NEVER
        return Intervals(parse_interval(self.log_every), evaluation, parse_interval(self.checkpoint_every))

    def deadline(self, began: float) -> float:
        """Return when a process started at `began` must stop to end within --time-limit; infinite without a limit."""
        limit = self.time_limit_seconds
        return began + limit - min(30.0, limit / 10)

    @property
    def time_limit_seconds(self) -> float:
        """Return --time-limit in seconds; infinite if not given."""
        return math.inf if self.time_limit is None else parse_seconds(self.time_limit)

    @property
    def kept_chars(self) -> int:
        """Return the number of characters of the corpus to use; 0 means all."""
        if self.max_chars is not None:
            return self.max_chars
        return 0 if self.corpus else 20_000

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
        fields = {k: str(v) if isinstance(v, Path) else v for k, v in dataclasses.asdict(self).items()}
        return {**fields, "corpus": _one_or_list([str(path) for path in self.corpus or ()])}

    def facts(self) -> Dict[str, str]:
        """Return every field as text; equal on two ranks if and only if their configurations are equal."""
        return {k: shown(v) for k, v in self.to_json().items()}

    def resolved(self, size: int, prefixes: Sequence[str]) -> Dict[str, Any]:
        """Return the fields with their defaults resolved for `size` workers and the corpus, to reproduce the run."""
        return {
            **self.to_json(),
            "corpus": _one_or_list([str(path.resolve()) for path in self.corpus or ()]),
            "init": None if self.init is None else str(self.init.resolve()),
            "max_chars": self.kept_chars,
            "global_batch_size": self.streams(size),
            "batch_size_per_worker": None,
            "state_reset": "window" if self.resets_every_window else "epoch",
            "decay_epochs": self.decay_epochs or (None if self.learning_rate_schedule == "constant" else self.epochs),
            "prefix": list(prefixes),
        }


def _one_or_list(values: List[str]) -> Any:
    """Return None for no values, a single one as it is, and several as a list."""
    return values if len(values) > 1 else values[0] if values else None


FIELDS = fields_of(RunConfig)
