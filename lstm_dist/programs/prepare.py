"""Prepare text of any size for training: encode it as tokens in a file of which every worker reads its own part.

python jobs/prepare.py a.txt b.txt --out corpus                  one process
mpirun -np 8 python jobs/prepare.py a.txt b.txt --out corpus     eight processes: the same bytes, in less time
python jobs/train.py --corpus corpus                             train on the result
python jobs/prepare.py --check corpus                            verify its hashes

The texts are concatenated in the order given, those of a folder in the order of their names. Line ends become spaces,
as in the D2L chapter, unless --keep-newlines is given. UTF-8, UTF-16 and UTF-32 are detected; a text that is not UTF-8
is first decoded by one process.
"""

import argparse
import contextlib
from functools import partial
from itertools import zip_longest
from pathlib import Path
from typing import Iterator, List, Optional, Sequence

from tqdm import tqdm

from lstm_dist.cli import TeachingParser
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.rank_group import RankGroup
from lstm_dist.data.text_chunks import TextFile, find_text_files
from lstm_dist.data.token_dataset import Manifest, StagingDir, open_corpus, read_manifest
from lstm_dist.data.token_file import TOKENS, damaged
from lstm_dist.data.tokenize import Advance, TextShard, VocabularyRules, hash_blocks, prepare_corpus
from lstm_dist.data.transcode import transcode
from lstm_dist.encoding import NO_ENCODING, is_encoding
from lstm_dist.errors import UserError, print_warning
from lstm_dist.files import missing_guarantees


def parse(argv: Optional[List[str]]) -> argparse.Namespace:
    """Parse the command line and check the range of every value.

    Raises:
        UserError: naming the flag.
    """
    text = argparse.RawDescriptionHelpFormatter
    parser = TeachingParser(prog="jobs/prepare.py", description=__doc__, allow_abbrev=False, formatter_class=text)
    parser.add_argument("texts", nargs="*", type=Path, metavar="TEXT", help="text files, or folders of them")
    parser.add_argument("--out", type=Path, metavar="DIR", help="folder to create for the prepared corpus")
    parser.add_argument("--overwrite", action="store_true", help="replace the prepared corpus in --out")
    parser.add_argument(
        "--min-count", type=int, default=1, metavar="N",
        help="replace characters that occur fewer than N times by the unknown character U+FFFD (default %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--max-vocab", type=int, default=0, metavar="N",
        help="keep the N most frequent characters, counting U+FFFD, which replaces the others (default 0: all)",
    )  # fmt: skip
    parser.add_argument(
        "--encoding", metavar="NAME",
        help="encoding of the texts, such as gb18030, big5, utf-16 or cp1252 (default: UTF-8, UTF-16 or UTF-32)",
    )  # fmt: skip
    parser.add_argument(
        "--keep-newlines", action="store_true", help="keep line ends instead of replacing them by spaces"
    )
    parser.add_argument(
        "--check", type=Path, metavar="DIR", help="verify the hashes of a prepared corpus instead of preparing one"
    )
    given = parser.parse(argv)
    if given.check is None and not given.texts:
        raise UserError("TEXT: give the text files to prepare")
    if given.check is None and given.out is None:
        raise UserError("--out: give the folder to create")
    if given.check is not None and (given.texts or given.out):
        raise UserError("--check: cannot be combined with TEXT or --out: leave them out")
    if given.encoding is not None and not is_encoding(given.encoding):
        raise UserError(f"--encoding {given.encoding}: {NO_ENCODING}")
    for name in ("overwrite", "min_count", "max_vocab", "encoding", "keep_newlines"):
        if given.check is not None and getattr(given, name) != parser.get_default(name):
            raise UserError(f"--check: --{name.replace('_', '-')} has no effect on it: leave it out")
    if given.min_count < 1:
        raise UserError(f"--min-count {given.min_count}: should be at least 1")
    if given.max_vocab < 0 or given.max_vocab == 1:
        raise UserError(f"--max-vocab {given.max_vocab}: should be at least 2, or 0 for no limit")
    return given


@contextlib.contextmanager
def progress(group: RankGroup, phase: str, size: int) -> Iterator[Advance]:
    """Show a progress bar of the root's `size` bytes; the other ranks have shares of about the same size."""
    with tqdm(total=size, desc=phase, unit="B", unit_scale=True, disable=None if group.is_root else True) as bar:
        yield bar.update


def create(given: argparse.Namespace, group: RankGroup) -> None:
    """Prepare the texts and write the corpus to --out.

    Raises:
        CollectiveError: naming the flag or the file.
    """
    files = group.run_on_all(lambda: find_text_files(given.texts, given.encoding), "texts")
    group.require_equal({str(file.path): f"{file.size} bytes" for file in files}, "TEXT")
    staging = group.run_on_root(lambda: StagingDir(given.out, given.overwrite), "out")
    for warning in missing_guarantees(staging.out.parent) if staging else []:
        print_warning(warning)
    folder = Path(group.broadcast_object(str(staging.folder.resolve()) if staging else "", "folder"))
    rules = VocabularyRules(given.min_count, given.max_vocab)
    try:
        shard = TextShard(in_utf8(files, staging, group), group, given.keep_newlines)
        manifest, vocabulary = prepare_corpus(shard, group, folder, rules, partial(progress, group))
        group.run_on_root(lambda: commit(given.out, staging, manifest, vocabulary), "finish")
    except BaseException:
        if staging:
            staging.close()
        raise


def in_utf8(files: Sequence[TextFile], staging: Optional[StagingDir], group: RankGroup) -> Sequence[TextFile]:
    """Return the texts, those in other encodings as copies in UTF-8, which the root makes."""
    if all(file.codec == "utf-8" for file in files):
        return files

    def copy(number: int, file: TextFile) -> TextFile:
        assert staging is not None  # noqa: S101 - the root has it
        return file if file.codec == "utf-8" else transcode(file, staging.copies.resolve() / str(number))

    made = group.run_on_root(lambda: [copy(number, file) for number, file in enumerate(files)], "decode") or []
    facts = group.broadcast_object([(str(file.path), file.size, file.mtime_ns) for file in made], "copies")
    return [TextFile(Path(path), size, mtime_ns) for path, size, mtime_ns in facts]


def commit(out: Path, staging: Optional[StagingDir], manifest: Manifest, vocabulary: bytes) -> None:
    """Move the complete corpus to `out` and report it; called on the root."""
    if staging:
        staging.commit(manifest, vocabulary)
        print(f"{out}: {manifest.chars:,} characters of {manifest.describe()}, {manifest.unknown:,} unknown")


def check(folder: Path, group: RankGroup) -> None:
    """Verify the hashes of a prepared corpus.

    Raises:
        CollectiveError: naming the folder, when it is not a prepared corpus or is damaged.
    """
    manifest = group.run_on_all(lambda: read_manifest(folder, "--check"), "manifest")
    group.run_on_all(lambda: open_corpus(folder, 0, "--check"), "corpus")
    path = folder / TOKENS
    size = path.stat().st_size
    with progress(group, "checking", size // group.size) as advance:
        blocks = hash_blocks(path, size, group, advance)
    for number, (found, expected) in enumerate(zip_longest(blocks, manifest.blocks)):
        if found != expected:
            error = damaged(folder, f"block {number} of {TOKENS} does not match its hash", "--check")
            raise CollectiveError(str(error), error.status)
    if group.is_root:
        print(f"{folder}: {manifest.chars:,} characters, all hashes match")


def main(argv: Optional[List[str]] = None) -> None:
    """Prepare a corpus, or check one."""
    with MpiGroup.open() as group:
        given = group.run_on_all(lambda: parse(argv), "configuration")
        if given.check is not None:
            check(given.check, group)
        else:
            create(given, group)
