"""Generate text with a trained model, in one process; a checkpoint is enough, because it holds the vocabulary."""

import sys
from pathlib import Path
from typing import List, Optional

import mxnet as mx
from pydantic import ConfigDict, ValidationInfo, field_validator
from pydantic.dataclasses import dataclass

from lstm_dist.cli import TeachingParser
from lstm_dist.errors import UserError, printable
from lstm_dist.model.generate import continue_text
from lstm_dist.options import add_options, option, validated
from lstm_dist.run.pretrained import SOURCE, find_checkpoint, load_pretrained


@dataclass(frozen=True, config=ConfigDict(validate_default=True))
class Options:
    """The command line, apart from the source of the model."""

    prefix: Optional[str] = option(
        None, "text to continue (default: each of those that the run's own samples continue)"
    )
    length: int = option(100, "new characters", ge=1)
    temperature: float = option(
        0.0,
        "0: always the most likely character; 0.8: more varied; 1: the model's own distribution",
        ge=0,
        allow_inf_nan=False,
    )
    top_k: Optional[int] = option(None, "sample from the K most likely characters only", ge=1)
    seed: Optional[int] = option(None, "seed of the sampling (default 0)", ge=0)

    @field_validator("prefix")
    @classmethod
    def _no_empty_prefix(cls, value: Optional[str]) -> Optional[str]:
        if value == "":
            raise ValueError("Input should have at least one character")
        return value

    @field_validator("top_k", "seed")
    @classmethod
    def _only_with_a_temperature(cls, value: Optional[int], info: ValidationInfo) -> Optional[int]:
        if value is not None and info.data.get("temperature") == 0:
            raise ValueError("has no effect at temperature 0; give --temperature 0.8, or omit it")
        return value


def main(argv: Optional[List[str]] = None) -> None:
    """Print each prefix and exactly `--length` new characters."""
    parser = TeachingParser(prog="jobs/sample.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar=SOURCE, help="runs/NAME, or a .safetensors file")
    add_options(parser, Options)
    given = vars(parser.parse(argv))
    source = given.pop("source")
    options = validated(Options, given)
    model, vocabulary, prefixes = load_pretrained(find_checkpoint(source), mx.cpu())
    if options.prefix is not None:
        prefixes = [options.prefix]
        missing = vocabulary.missing(options.prefix)
        if missing:
            raise UserError(
                f"--prefix {options.prefix}: the model's vocabulary lacks {missing!r}; use characters it was trained on"
            )
    for prefix in prefixes:
        text = continue_text(
            model, vocabulary, prefix, options.length, options.temperature, options.top_k, options.seed or 0
        )
        # The model may have learnt lines, whose ends are then shown as they are.
        print("\n".join(map(printable, text.split("\n"))) if sys.stdout.isatty() else text, flush=True)
