"""Evaluate a model on a text: perplexity and bits per character, as if one worker read all of it.

python jobs/evaluate.py runs/first --corpus other.txt                     one worker
horovodrun -np 4 --gloo python jobs/evaluate.py runs/first --corpus x     four workers, the same result

--streams are read in parallel and distributed to the workers; neither number changes the result. Characters that are
not in the model's vocabulary are counted; they are read as its unknown character if it was trained with one
(jobs/prepare.py --min-count, --max-vocab), and omitted otherwise.
"""

import argparse
import hashlib
from pathlib import Path
from typing import List, NamedTuple, Optional, Tuple

from pydantic import ConfigDict, field_validator
from pydantic.dataclasses import dataclass
from tqdm import tqdm
from typing_extensions import Literal

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster import devices
from lstm_dist.comm.horovod_group import HorovodWorld
from lstm_dist.comm.world import World
from lstm_dist.data.corpus import Corpus, name_files
from lstm_dist.data.reencode import EncodedText, reencode
from lstm_dist.data.token_dataset import load
from lstm_dist.errors import UserError, printable
from lstm_dist.options import add_options, option, validated
from lstm_dist.run.pretrained import SOURCE, Pretrained, find_checkpoint, load_pretrained
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.config import FIELDS, corpus_paths, require_encoding
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.metrics import bits_per_char, perplexity

STREAMS = 32  # of every worker, by default


@dataclass(frozen=True, config=ConfigDict(validate_default=True))
class Options:
    """The command line, apart from the source of the model."""

    corpus: List[Path] = option(..., str(FIELDS["corpus"].description).rpartition(" (")[0])
    encoding: Optional[str] = option(None, str(FIELDS["encoding"].description), metavar="NAME")
    max_chars: int = option(0, "use only the first N characters (0 = all)", ge=0)
    max_corpus_bytes: int = option(
        FIELDS["max_corpus_bytes"].default, str(FIELDS["max_corpus_bytes"].description), ge=1
    )
    streams: Optional[int] = option(None, f"streams that are read in parallel (default: {STREAMS} per worker)", ge=1)
    seq_len: int = option(35, "characters per window", ge=1, le=10_000)
    device: Literal["auto", "cpu", "gpu"] = option("auto", str(FIELDS["device"].description))
    stall_timeout: float = option(
        FIELDS["stall_timeout"].default,
        "seconds without a window after which a worker ends itself and the job",
        ge=1,
        allow_inf_nan=False,
    )

    _one_or_several = field_validator("corpus", mode="before")(corpus_paths)
    _is_encoding = field_validator("encoding")(require_encoding)


def parse(argv: Optional[List[str]]) -> Tuple[Path, Options]:
    """Return the source of the model, and the other options.

    Raises:
        UserError: naming the flag.
    """
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/evaluate.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    parser.add_argument("source", type=Path, metavar=SOURCE, help="runs/NAME, or a .safetensors file")
    add_options(parser, Options)
    given = vars(parser.parse(argv))
    return given.pop("source"), validated(Options, given)


class Task(NamedTuple):
    """The loaded model and text."""

    trained: Pretrained
    corpus: Corpus
    encoded: EncodedText
    evaluator: Evaluator


def prepare(options: Options, checkpoint: Path, world: World) -> Task:
    """Load the model and the text.

    Raises:
        UserError: if either is invalid, or the text is too short.
    """
    trained = load_pretrained(checkpoint, devices.choose(options.device, world.local_rank))
    keeps_newlines = not trained.vocabulary.missing("\n")
    corpus = load(options.corpus, options.max_chars, options.max_corpus_bytes, options.encoding, keeps_newlines)
    encoded = reencode(corpus, trained.vocabulary)
    streams = options.streams or max(world.size, min(STREAMS * world.size, len(encoded.tokens) - 1))
    try:
        evaluator = Evaluator(encoded.tokens, streams, options.seq_len, world)
    except UserError as error:
        corpora = name_files([str(path) for path in options.corpus])
        reasons = ": ".join(filter(None, [f"--corpus {corpora}", encoded.describe_unknown(), str(error)]))
        raise UserError(
            f"{reasons}: use a longer text with characters of the model's vocabulary, or fewer --streams", error.status
        ) from None
    return Task(trained, corpus, encoded, evaluator)


def main(argv: Optional[List[str]] = None) -> None:
    """Evaluate the model, and print the result on the root."""
    with Watchdog() as watchdog, HorovodWorld.open() as world:
        source, options = world.run_on_all(lambda: parse(argv), "configuration")
        watchdog.allow(options.stall_timeout)
        found = world.run_on_root(lambda: find_checkpoint(source), "find")
        # The last checkpoint of a running job changes, so the root chooses one for all ranks.
        checkpoint = Path(world.broadcast_object(str(found), "checkpoint"))
        task = world.run_on_all(lambda: prepare(options, checkpoint, world), "prepare")
        weights = hashlib.sha256(task.trained.model.weights.asnumpy()).hexdigest()
        cut = f"{len(task.encoded.tokens)} characters, {options.streams} streams, windows of {options.seq_len}"
        world.require_equal({"corpus": task.corpus.digest, "weights": weights, "settings": cut}, "start")
        is_hidden = None if world.is_root else True  # None shows the bar only on a terminal
        with tqdm(total=task.evaluator.chars, unit="char", unit_scale=True, disable=is_hidden) as bar:

            def advance(chars: int) -> None:
                bar.update(chars * world.size)
                watchdog.beat("step", int(bar.n))

            result = task.evaluator.evaluate(task.trained.model, advance)
        if world.is_root:
            if task.encoded.unknown_count:
                print(printable(task.encoded.describe_unknown()))
            print(
                f"perplexity {perplexity(result.loss):.6g} | {bits_per_char(result.loss):.6g} bits/char | "
                f"{result.chars:,} characters of {task.corpus.source}"
            )
