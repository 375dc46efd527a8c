"""The command line of jobs/train.py: defaults < `--config FILE.toml` < flags; validated when parsed."""

import argparse
import sys
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

from lstm_dist.cli import TeachingParser, suggestion
from lstm_dist.encoding import decode_unicode
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.options import add_options, validated
from lstm_dist.train.config import FIELDS, RunConfig

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

_MAX_TOML = 2**20  # bytes of a --config file: refuses files that are not settings before they are read in full
_BEGINNING = ("init", "overwrite")
_BATCH_SIZES = ("global_batch_size", "batch_size_per_worker")


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
    return validated(RunConfig, values, lambda name: str(file) if file and name not in given else "")


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
        "--config", type=Path, metavar="FILE.toml", help="read settings from this file; flags override it"
    )
    add_options(parser, RunConfig)
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
        values = tomllib.loads(decode_unicode(data))
    except (ValueError, RecursionError) as error:  # invalid TOML, no Unicode, or too deeply nested
        raise UserError(f"--config {path}: is not TOML ({error})", ExitStatus.BAD_CONFIG) from None
    for key in values:
        if key not in FIELDS:
            raise UserError(f"--config {path}: unknown key {key!r}{suggestion(key, FIELDS)}", ExitStatus.BAD_CONFIG)
    return values
