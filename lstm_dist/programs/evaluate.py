"""How well a model predicts a text: perplexity and bits per character over all of it, as if one worker read it through.

python jobs/evaluate.py runs/first --corpus other.txt                     one worker
horovodrun -np 4 --gloo python jobs/evaluate.py runs/first --corpus x     four, and the same number

The text is read in --streams at once, which are shared out to the workers; neither number changes the result.
Characters that the model does not know are counted: they are read as its sign for unknown ones if it was trained with
that (jobs/prepare.py --min-count, --max-vocab), and else left out.
"""

import argparse
import hashlib
import math
from pathlib import Path
from typing import List, NamedTuple, Optional

from tqdm import tqdm

from lstm_dist.cli import TeachingParser
from lstm_dist.cluster import devices
from lstm_dist.comm.horovod_group import World
from lstm_dist.data.corpus import Corpus
from lstm_dist.data.reencode import Reading, translate
from lstm_dist.data.token_dataset import load
from lstm_dist.errors import UserError
from lstm_dist.run.pretrained import SOURCE, Pretrained, find_checkpoint, load_pretrained
from lstm_dist.run.watchdog import Watchdog
from lstm_dist.train.config import FIELDS
from lstm_dist.train.evaluator import Evaluator
from lstm_dist.train.metrics import bits_per_char, perplexity

STREAMS = 32  # of every worker, where nobody says how many


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line, every value in its range."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/evaluate.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    add = parser.add_argument
    add("source", type=Path, metavar=SOURCE, help="runs/NAME, or a .safetensors file")
    add("--corpus", type=Path, required=True, metavar="PATH", help=str(FIELDS["corpus"].description).split(";")[0])
    add("--max-chars", type=int, default=0, metavar="N", help="of its first so many characters; 0, the default, of all")
    add("--max-corpus-bytes", type=int, default=FIELDS["max_corpus_bytes"].default, metavar="N",
        help="refuse a text that expands to more bytes than this (default %(default)s)")  # fmt: skip
    add("--streams", type=int, metavar="N", help=f"that are read at once (default {STREAMS} a worker)")
    add("--seq-len", type=int, default=35, metavar="N", help="characters in a window (default %(default)s)")
    add("--device", choices=("auto", "cpu", "gpu"), default="auto", help="as for jobs/train.py (default %(default)s)")
    add("--stall-timeout", type=float, default=FIELDS["stall_timeout"].default, metavar="X",
        help="seconds without a window after which a worker ends itself and the job (default %(default)g)")  # fmt: skip
    given = parser.parse(argv)
    for flag, value, least in (
        ("--max-chars", given.max_chars, 0), ("--max-corpus-bytes", given.max_corpus_bytes, 1),
        ("--streams", given.streams, 1), ("--stall-timeout", given.stall_timeout, 1),
    ):  # fmt: skip
        if value is not None and value < least:
            raise UserError(f"{flag} {value}: should be at least {least}")
    if not math.isfinite(given.stall_timeout):
        raise UserError(f"--stall-timeout {given.stall_timeout}: should be a number of seconds")
    if not 1 <= given.seq_len <= 10_000:
        raise UserError(f"--seq-len {given.seq_len}: should be between 1 and 10,000")
    return given


class Job(NamedTuple):
    """What is settled before anything is read."""

    trained: Pretrained
    corpus: Corpus
    reading: Reading
    evaluator: Evaluator


def prepare(given: argparse.Namespace, path: Path, world: World) -> Job:
    """Load the model and the text."""
    trained = load_pretrained(path, devices.choose(given.device, world.local_rank))
    corpus = load(given.corpus, given.max_chars, given.max_corpus_bytes)
    reading = translate(corpus, trained.vocabulary)
    streams = given.streams or max(world.size, min(STREAMS * world.size, len(reading.tokens) - 1))
    try:
        evaluator = Evaluator(reading.tokens, streams, given.seq_len, world)
    except UserError as error:
        said = ": ".join(filter(None, [f"--corpus {given.corpus}", reading.remark(), str(error)]))
        raise UserError(
            f"{said}: give a longer text of characters that it knows, or fewer --streams", error.status
        ) from None
    return Job(trained, corpus, reading, evaluator)


def main(argv: Optional[List[str]] = None) -> None:
    """Read, and say how well it was predicted."""
    with Watchdog() as watchdog, World.open() as world:
        given = world.run_on_all(lambda: parse(argv), "configuration")
        watchdog.allow(given.stall_timeout)
        found = world.run_on_root(lambda: find_checkpoint(given.source), "find")
        # The last checkpoint of a running job changes, so the root chooses one for all.
        path = Path(world.broadcast_object(str(found), "path"))
        job = world.run_on_all(lambda: prepare(given, path, world), "prepare")
        weights = hashlib.sha256(job.trained.model.weights.asnumpy()).hexdigest()
        cut = f"{len(job.reading.tokens)} characters, {given.streams} streams, windows of {given.seq_len}"
        world.require_equal({"corpus": job.corpus.digest, "weights": weights, "settings": cut}, "start")
        with tqdm(
            total=job.evaluator.chars, unit="char", unit_scale=True, disable=None if world.is_root else True
        ) as bar:

            def advance(chars: int) -> None:
                bar.update(chars * world.size)
                watchdog.beat("step", int(bar.n))

            result = job.evaluator.evaluate(job.trained.model, advance)
        if world.is_root:
            for line in filter(None, [job.reading.remark()]):
                print(line)
            print(
                f"perplexity {perplexity(result.loss):.6g} | {bits_per_char(result.loss):.6g} bits/char | "
                f"{result.chars:,} characters of {job.corpus.source}"
            )
