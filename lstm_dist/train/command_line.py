"""The command line of jobs/train.py: defaults < `--config FILE` < flags; validated when parsed."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Sequence, Set

from lstm_dist.cli import TeachingParser, suggestion
from lstm_dist.encoding import decode_unicode
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.options import add_options, flag, shown, validated
from lstm_dist.train.config import FIELDS, RunConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_FILE = 2**20  # bytes of a --config file: refuses files that are not settings before they are read in full
_BEGINNING = ("init", "overwrite")
_BATCH_SIZES = ("global_batch_size", "batch_size_per_worker")
# Keys of a run's config.json that are not settings of another run.
_OF_ONE_RUN = ("run_dir", "overwrite", "resume", "auto_resume", "dry_run", "time_limit", "corpus_sha256")


class SettingsFile(NamedTuple):
    """The settings of a --config file, by field name, and whether it is the config.json of a run, with all of them."""

    values: Dict[str, Any]
    is_of_run: bool


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
    of_file, is_of_run = _read_settings(file) if file else SettingsFile({}, False)
    if base is not None and ({**of_file, **given}).get("auto_resume"):
        given = {**{key: value for key, value in given.items() if key not in _BEGINNING}, "resume": True}
    if given.get("resume"):  # settings for the start of a run do not apply to a resumed one
        of_file = {key: value for key, value in of_file.items() if key not in _BEGINNING}
    for layer in (base or {}, of_file, given):
        if not set(layer).isdisjoint(_BATCH_SIZES):
            # Both set the batch size, so either one overrides whichever a lower layer gave.
            values = {key: value for key, value in values.items() if key not in _BATCH_SIZES}
        values.update(layer)
    settings = validated(RunConfig, values, lambda name: str(file) if file and name not in given else "")
    if not (settings.resume or settings.auto_resume):  # a scheduler repeats a command that it has started a run with
        _refuse_ineffective({*given, *(() if is_of_run else of_file)}, settings)
    return settings


def _refuse_ineffective(given: Set[str], settings: RunConfig) -> None:
    """Raise UserError if one of the `given` settings has no effect in combination with the others."""
    schedule, epochs = settings.learning_rate_schedule, settings.epochs
    never_decays = schedule == "step" and (settings.decay_epochs or epochs) >= epochs
    for name, has_no_effect, needed in (
        ("decay_epochs", schedule == "constant", "--learning-rate-schedule step or cosine"),
        ("decay_factor", schedule == "constant", "--learning-rate-schedule step or cosine"),
        ("learning_rate_schedule", never_decays, "--decay-epochs below --epochs"),
        ("eval_every", not settings.valid_fraction, "--valid-fraction"),
        ("eval_every", settings.every.evaluation.epochs > epochs, "as many --epochs"),
    ):
        if name in given and has_no_effect:
            value = shown(getattr(settings, name))
            raise UserError(f"{flag(name)} {value}: has no effect without {needed}: add that, or leave it out")


def _parser() -> TeachingParser:
    parser = TeachingParser(
        prog="jobs/train.py",
        description=(
            "Train the hand-written LSTM with one worker, or under `horovodrun -np N`, `mpirun -np N` or `srun` with N "
            "workers that share the streams of one batch."
        ),
        epilog="Every flag can also be given in the --config file, with underscores: `hidden_size = 512`.",
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
    )
    parser.add_argument(
        "--config",
        type=Path,
        metavar="FILE",
        help="read settings from this TOML file or config.json of a run; flags override it",
    )
    add_options(parser, RunConfig)
    return parser


def _read_settings(path: Path) -> SettingsFile:
    """Read a --config file.

    Raises:
        UserError: naming it, if it cannot be read, is neither TOML nor JSON, or has an unknown key.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE + 1)
    except OSError as error:
        raise UserError(f"--config {path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    if len(data) > _MAX_FILE:
        raise UserError(
            f"--config {path}: has more than {_MAX_FILE:,} bytes, give settings only", ExitStatus.BAD_CONFIG
        )
    is_json = False
    try:
        text = decode_unicode(data)
        is_json = text.lstrip().startswith("{")  # no TOML file does
        values = json.loads(text) if is_json else tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # an invalid file, no Unicode, or too deeply nested
        kind = "JSON" if is_json else "TOML"
        raise UserError(f"--config {path}: is not {kind} ({error})", ExitStatus.BAD_CONFIG) from None
    if is_json:
        values = {key: value for key, value in values.items() if key not in _OF_ONE_RUN and value is not None}
    for key in values:
        if key not in FIELDS:
            raise UserError(f"--config {path}: unknown key {key!r}{suggestion(key, FIELDS)}", ExitStatus.BAD_CONFIG)
    return SettingsFile(values, is_json)
