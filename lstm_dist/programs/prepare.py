"""Prepare text of any size for training: characters become tokens in a file of which every worker reads its part.

python jobs/prepare.py a.txt b.txt --out corpus                  one process
mpirun -np 8 python jobs/prepare.py a.txt b.txt --out corpus     eight: the same bytes come out, sooner
python jobs/train.py --corpus corpus                             train on it
python jobs/prepare.py --check corpus                            whether it is still what was written

The texts are UTF-8, and follow one another in the order given. Line ends become spaces, as in the document.
"""

import argparse
import contextlib
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Iterator, List, Optional

from tqdm import tqdm

from lstm_dist.cli import TeachingParser
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.text_chunks import find_texts
from lstm_dist.data.token_dataset import Manifest, Workshop, open_corpus, read_manifest
from lstm_dist.data.token_file import TOKENS, damaged
from lstm_dist.data.tokenize import Advance, Rules, Texts, hash_blocks, prepare
from lstm_dist.errors import UserError


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """The command line, every value in its range."""
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/prepare.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT", help="UTF-8 text files")
    parser.add_argument("--out", type=Path, metavar="DIR", help="the folder that is made")
    parser.add_argument("--overwrite", action="store_true", help="replace the prepared corpus that --out holds")
    parser.add_argument(
        "--min-count", type=int, default=1, metavar="N", help="of rarer characters, make one that stands for unknown"
    )
    parser.add_argument(
        "--max-vocab", type=int, default=0, metavar="N", help="keep the N most frequent ones, the unknown among them"
    )
    parser.add_argument("--check", type=Path, metavar="DIR", help="instead: read a prepared corpus and compare hashes")
    given = parser.parse(argv)
    if given.check is None and not given.texts:
        raise UserError("TEXT: name the text files to prepare")
    if given.check is None and given.out is None:
        raise UserError("--out: name the folder that is to be made")
    if given.check is not None and (given.texts or given.out):
        raise UserError("--check: looks at what was prepared: leave out TEXT and --out")
    if given.min_count < 1:
        raise UserError(f"--min-count {given.min_count}: should be at least 1")
    if given.max_vocab < 0 or given.max_vocab == 1:
        raise UserError(f"--max-vocab {given.max_vocab}: should be at least 2, or 0 for any number")
    return given


@contextlib.contextmanager
def progress(group: MpiGroup, what: str, size: int) -> Iterator[Advance]:
    """A bar of the root's share, of which all have one of that size."""
    with tqdm(total=size, desc=what, unit="B", unit_scale=True, disable=None if group.is_root else True) as bar:
        yield bar.update


def make(given: argparse.Namespace, group: MpiGroup) -> None:
    """All texts to one folder."""
    files = group.run_on_all(lambda: find_texts(given.texts), "texts")
    group.require_equal({str(file.path): f"{file.size} bytes" for file in files}, "TEXT")
    workshop = group.run_on_root(lambda: Workshop(given.out, given.overwrite), "out")
    folder = Path(group.broadcast_object(str(workshop.folder.resolve()) if workshop else "", "folder"))
    rules = Rules(given.min_count, given.max_vocab)
    try:
        made = prepare(Texts(files, group), group, folder, rules, partial(progress, group))
        group.run_on_root(lambda: finish(given.out, workshop, *made), "finish")
    except BaseException:
        if workshop:
            workshop.close()
        raise


def finish(out: Path, workshop: Optional[Workshop], manifest: Manifest, vocabulary: bytes) -> None:
    """What the root does when all is written."""
    if workshop:
        workshop.finish(manifest, vocabulary)
        print(f"{out}: {manifest.chars:,} characters of {manifest.describe()}, {manifest.unknown:,} unknown")


def check(folder: Path, group: MpiGroup) -> None:
    """Whether a prepared corpus is what was written."""
    manifest = group.run_on_all(lambda: read_manifest(folder, "--check"), "manifest")
    group.run_on_all(lambda: open_corpus(folder, 0, "--check"), "corpus")
    path = folder / TOKENS
    size = path.stat().st_size
    with progress(group, "checking", size // group.size) as advance:
        blocks = hash_blocks(path, size, group, advance)
    for number, (found, written) in enumerate(zip_longest(blocks, manifest.blocks)):
        if found != written:
            error = damaged(folder, f"block {number} of {TOKENS} is not what was written", "--check")
            raise CollectiveError(str(error), error.status)
    if group.is_root:
        print(f"{folder}: {manifest.chars:,} characters, all as they were written")


def main(argv: Optional[List[str]] = None) -> None:
    """Prepare, or check."""
    with MpiGroup.open() as group:
        given = group.run_on_all(lambda: parse(argv), "configuration")
        if given.check is not None:
            check(given.check, group)
        else:
            make(given, group)
