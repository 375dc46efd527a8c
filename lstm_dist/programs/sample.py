"""Let a trained model go on writing. One process; a checkpoint is enough, its vocabulary is inside."""

import argparse
import sys
from pathlib import Path
from typing import List, Optional

import mxnet as mx

from lstm_dist.cli import TeachingParser
from lstm_dist.errors import UserError, printable
from lstm_dist.model.generate import continue_text
from lstm_dist.run.pretrained import SOURCE, find_checkpoint, load_pretrained


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line, every value in its range."""
    parser = TeachingParser(prog="jobs/sample.py", description=__doc__, allow_abbrev=False)
    parser.add_argument("source", type=Path, metavar=SOURCE, help="runs/NAME, or a .safetensors file")
    parser.add_argument("--prefix", default="分开", metavar="TEXT", help="what to continue (default %(default)s)")
    parser.add_argument("--length", type=int, default=100, metavar="N", help="new characters (default %(default)s)")
    parser.add_argument(
        "--temperature",
        type=float,
        default=0.0,
        metavar="X",
        help="0 always takes the likeliest character; 0.8 is livelier, 1 is the model's own distribution (default 0)",
    )
    parser.add_argument("--top-k", type=int, metavar="K", help="draw among the K likeliest characters only")
    parser.add_argument("--seed", type=int, metavar="N", help="of the drawing (default 0)")
    given = parser.parse(argv)
    for flag, value, least in (("--length", given.length, 1), ("--top-k", given.top_k, 1), ("--seed", given.seed, 0)):
        if value is not None and value < least:
            raise UserError(f"{flag} {value}: should be at least {least}")
    if not 0 <= given.temperature < float("inf"):
        raise UserError(f"--temperature {given.temperature:g}: should be 0 or a positive number")
    if not given.temperature:
        for flag, value in (("--top-k", given.top_k), ("--seed", given.seed)):
            if value is not None:
                raise UserError(
                    f"{flag} {value}: nothing is drawn at temperature 0; give --temperature 0.8, or drop it"
                )
    given.seed = given.seed or 0
    if not given.prefix:
        raise UserError("--prefix: should have at least one character")
    return given


def main(argv: Optional[List[str]] = None) -> None:
    """Print the prefix and exactly `--length` new characters."""
    given = parse(argv)
    model, vocabulary = load_pretrained(find_checkpoint(given.source), mx.cpu())
    missing = vocabulary.missing(given.prefix)
    if missing:
        raise UserError(
            f"--prefix {given.prefix}: the model's vocabulary lacks {missing!r}; use characters it was trained on"
        )
    text = continue_text(model, vocabulary, given.prefix, given.length, given.temperature, given.top_k, given.seed)
    print(printable(text) if sys.stdout.isatty() else text, flush=True)
