"""Preparation of a corpus from text of any size; the output is the same for any number of ranks.

Every rank processes one range of the bytes, in parts that fit in memory, twice: first to count the characters for the
vocabulary, then to write their tokens after those of the preceding ranks.
"""

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Callable, ContextManager, Iterator, List, NamedTuple, Sequence

import numpy as np

from lstm_dist.comm.mpi_file import SharedFile
from lstm_dist.comm.mpi_group import MpiGroup
from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.data.corpus import UNKNOWN, Vocabulary, first_lines
from lstm_dist.data.text_chunks import AHEAD, Part, TextFile, decode, parts
from lstm_dist.data.token_dataset import BLOCK, Manifest, vocabulary_json
from lstm_dist.data.token_file import TOKENS, header, token_type
from lstm_dist.errors import ExitStatus, UserError

PART = 2**22  # bytes of a text in memory at a time
CODE_POINTS = 0x110000  # number of Unicode code points

Advance = Callable[[int], object]  # receives the number of processed bytes
Watch = Callable[[str, int], ContextManager[Advance]]  # creates an Advance for a phase and its number of bytes


class Texts:
    """All texts, and this rank's range of their bytes.

    Attributes:
        files: all texts.
        start, stop: this rank's range of the concatenated texts.
    """

    def __init__(self, files: Sequence[TextFile], group: MpiGroup) -> None:
        self.files = files
        total = sum(file.size for file in files)
        self.start, self.stop = (total * rank // group.size for rank in (group.rank, group.rank + 1))

    def read(self, advance: Advance) -> Iterator[str]:
        """Read the characters of this rank's range, one part at a time.

        Raises:
            UserError: naming the file, when it is not UTF-8 or has changed.
        """
        for file, mine in groupby(parts(self.files, self.start, self.stop, PART), lambda part: part.file):
            with SharedFile(file.path) as shared:
                for part in mine:
                    yield decode(part, _read(shared, part))
                    advance(part.stop - part.start)
            if TextFile.at(file.path) != file:
                raise UserError(f"TEXT {file.path}: was changed meanwhile: prepare it again", ExitStatus.BAD_DATA)

    def first_lines(self) -> List[str]:
        """Return the beginnings of the first lines of the first text."""
        with SharedFile(self.files[0].path) as file:
            return first_lines(file.read(0, 4096).decode("utf-8", "ignore").lstrip("\ufeff"))


def _read(shared: SharedFile, part: Part) -> bytes:
    wanted = min(part.stop + AHEAD, part.file.size) - part.start
    raw = shared.read(part.start, wanted)
    if len(raw) < wanted:
        raise UserError(f"TEXT {part.file.path}: was changed meanwhile: prepare it again", ExitStatus.BAD_DATA)
    return raw


def points_of(text: str) -> np.ndarray:
    """Return the code points, as uint16 if all are below 2^16, which is half the size and faster to convert."""
    short = text.encode("utf-16-le")
    if len(short) == 2 * len(text):
        return np.frombuffer(short, dtype="<u2")
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def count(texts: Texts, group: MpiGroup, advance: Advance) -> "tuple[np.ndarray, int]":
    """Return the count of each code point in all texts, and the number of characters of this rank.

    Raises:
        UserError: as Texts.read.
    """
    counts = np.zeros(CODE_POINTS, dtype=np.int64)

    def count_mine() -> None:
        for text in texts.read(advance):
            found = np.bincount(points_of(text))
            counts[: len(found)] += found

    group.run_on_all(count_mine, "count")
    mine = int(counts.sum())
    group.sum_(counts)
    return counts, mine


class Rules(NamedTuple):
    """The rules for which characters a vocabulary keeps.

    Attributes:
        min_count: the minimum count of a kept character.
        max_vocab: the maximum vocabulary size, UNKNOWN included; 0 is unlimited. The most frequent characters are kept,
            and among equally frequent ones those with smaller code points.
    """

    min_count: int = 1
    max_vocab: int = 0


def choose(counts: np.ndarray, min_count: int, max_vocab: int) -> Vocabulary:
    """Return the characters that the rules keep, and UNKNOWN if any are left out; `counts` is by code point."""
    occurring = np.flatnonzero(counts)
    kept = occurring[counts[occurring] >= min_count]
    if len(kept) < len(occurring) or (max_vocab and len(kept) > max_vocab):
        kept = kept[kept != ord(UNKNOWN)]
        if max_vocab:
            kept = kept[np.argsort(-counts[kept], kind="stable")[: max_vocab - 1]]
        kept = np.append(kept, ord(UNKNOWN))
    return Vocabulary(map(chr, kept))


def write_tokens(
    texts: Texts, group: MpiGroup, vocabulary: Vocabulary, mine: int, path: Path, advance: Advance
) -> None:
    """Write every rank's tokens after those of the preceding ranks; the root writes the header.

    Args:
        texts: to encode.
        group: all ranks.
        vocabulary: of all texts.
        mine: number of characters of this rank.
        path: of the token file.
        advance: receives the number of encoded bytes of text.

    Raises:
        UserError: when the file cannot be written.
    """
    dtype = token_type(len(vocabulary))
    table = np.full(CODE_POINTS, vocabulary.unknown or 0, dtype=dtype)
    table[vocabulary.code_points] = np.arange(len(vocabulary))
    everybodys = group.allgather_object(mine, "characters")
    begin = header(dtype, sum(everybodys))

    def write_mine() -> None:
        offset = len(begin) + sum(everybodys[: group.rank]) * dtype.itemsize
        if group.is_root:
            shared.write(0, begin)
        for text in texts.read(advance):
            data = table[points_of(text)].tobytes()
            shared.write(offset, data)
            offset += len(data)

    with SharedFile(path, group) as shared:
        group.run_on_all(write_mine, "write")
        group.run_on_all(shared.sync, "sync")


def hash_blocks(path: Path, size: int, group: MpiGroup, advance: Advance) -> List[str]:
    """Return the SHA-256 of every BLOCK bytes of a file, in order; each rank reads back a range of the blocks.

    Raises:
        UserError: when the file cannot be read or is shorter than `size`.
    """
    blocks = range(0, size, BLOCK)
    first, last = (len(blocks) * rank // group.size for rank in (group.rank, group.rank + 1))
    mine: List[str] = []

    def hash_mine() -> None:
        with SharedFile(path) as shared:
            for start in blocks[first:last]:
                digest, stop = hashlib.sha256(), min(size, start + BLOCK)
                for here in range(start, stop, PART):
                    data = shared.read(here, min(PART, stop - here))
                    if len(data) < min(PART, stop - here):
                        raise UserError(f"{path}: is shorter than what was written", ExitStatus.CANNOT_WRITE)
                    digest.update(data)
                    advance(len(data))
                mine.append(digest.hexdigest())

    group.run_on_all(hash_mine, "hash")
    return [digest for each in group.allgather_object(mine, "blocks") for digest in each]


def prepare(texts: Texts, group: MpiGroup, folder: Path, rules: Rules, watch: Watch) -> "tuple[Manifest, bytes]":
    """Count the characters, write the token file and hash it.

    Args:
        texts: to prepare.
        group: all ranks, each with a range of the texts.
        folder: of the token file.
        rules: for the characters to keep.
        watch: creates the progress callback of a phase.

    Returns:
        The manifest and the bytes of vocabulary.json, both to be written by the root.

    Raises:
        CollectiveError: when a text is not UTF-8, the texts are empty, or a file cannot be read or written.
    """
    with watch("counting", texts.stop - texts.start) as advance:
        counts, mine = count(texts, group, advance)
    vocabulary = choose(counts, *rules)
    if not len(vocabulary):
        raise CollectiveError("TEXT: there is no character in it", ExitStatus.BAD_DATA)
    with watch("encoding", texts.stop - texts.start) as advance:
        write_tokens(texts, group, vocabulary, mine, folder / TOKENS, advance)
    chars, dtype = int(counts.sum()), token_type(len(vocabulary))
    size = len(header(dtype, chars)) + chars * dtype.itemsize
    with watch("checking", size // group.size) as advance:
        blocks = hash_blocks(folder / TOKENS, size, group, advance)
    held = counts[vocabulary.code_points]
    unknown = chars - int(held.sum())
    if vocabulary.unknown is not None:
        held[vocabulary.unknown] += unknown
    written = vocabulary_json(vocabulary, held.tolist())
    manifest = Manifest(
        files=[(file.path.name, file.size) for file in texts.files],
        chars=chars,
        unknown=unknown,
        min_count=rules.min_count,
        max_vocab=rules.max_vocab,
        first_lines=group.run_on_all(texts.first_lines, "lines"),
        blocks=blocks,
        vocabulary=hashlib.sha256(written).hexdigest(),
    )
    return manifest, written
