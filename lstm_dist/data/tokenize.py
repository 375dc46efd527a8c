"""Tokenization of a corpus from text of any size; the output is the same for any number of ranks.

Every rank processes one range of the bytes, in chunks that fit in memory, twice: first to count the characters for the
vocabulary, then to write their tokens after those of the preceding ranks.
"""

import hashlib
from itertools import groupby
from pathlib import Path
from typing import Callable, ContextManager, Iterator, List, NamedTuple, Sequence

import numpy as np

from lstm_dist.comm.process_group import CollectiveError
from lstm_dist.comm.rank_file import LocalFile
from lstm_dist.comm.rank_group import RankGroup
from lstm_dist.data.corpus import UNKNOWN, Vocabulary, code_points, first_lines
from lstm_dist.data.text_chunks import LOOKAHEAD, Chunk, TextFile, changed, chunks, decode
from lstm_dist.data.token_dataset import BLOCK, Manifest, vocabulary_json
from lstm_dist.data.token_file import TOKENS, npy_header, token_type
from lstm_dist.errors import ExitStatus, UserError

CHUNK_SIZE = 2**22  # bytes of a text in memory at a time
CODE_POINTS = 0x110000  # number of Unicode code points

Advance = Callable[[int], object]  # receives the number of processed bytes
Progress = Callable[[str, int], ContextManager[Advance]]  # creates the Advance of a phase with a number of bytes


class TextShard:
    """This rank's range of the bytes of all texts.

    Attributes:
        files: all texts.
        keeps_newlines: whether line ends stay what they are instead of becoming spaces.
        start, stop: this rank's range of the concatenated texts.
    """

    def __init__(self, files: Sequence[TextFile], group: RankGroup, keeps_newlines: bool = False) -> None:
        self.files, self.keeps_newlines = files, keeps_newlines
        total = sum(file.size for file in files)
        self.start, self.stop = (total * rank // group.size for rank in (group.rank, group.rank + 1))

    def read(self, advance: Advance) -> Iterator[str]:
        """Read the characters of this rank's range, one part at a time.

        Raises:
            UserError: naming the file, when it is not UTF-8 or has changed.
        """
        for file, mine in groupby(chunks(self.files, self.start, self.stop, CHUNK_SIZE), lambda chunk: chunk.file):
            with LocalFile(file.path) as shared:
                for chunk in mine:
                    yield decode(chunk, _read(shared, chunk), "\n" if self.keeps_newlines else " ")
                    advance(chunk.stop - chunk.start)
            if TextFile.stat(file.path) != file:
                raise changed(file)

    def first_lines(self) -> List[str]:
        """Return the beginnings of the first lines of the first text."""
        with LocalFile(self.files[0].path) as file:
            return first_lines(file.read(0, 4096).decode("utf-8", "ignore").lstrip("\ufeff"))


def _read(shared: LocalFile, chunk: Chunk) -> bytes:
    """Return the bytes of a chunk and up to LOOKAHEAD more."""
    wanted = min(chunk.stop + LOOKAHEAD, chunk.file.size) - chunk.start
    raw = shared.read(chunk.start, wanted)
    if len(raw) < wanted:
        raise changed(chunk.file)
    return raw


def count_characters(texts: TextShard, group: RankGroup, advance: Advance) -> "tuple[np.ndarray, int]":
    """Return the count of each code point in all texts, and the number of characters of this shard.

    Raises:
        UserError: as TextShard.read.
    """
    counts = np.zeros(CODE_POINTS, dtype=np.int64)

    def count_mine() -> None:
        for text in texts.read(advance):
            found = np.bincount(code_points(text))
            counts[: len(found)] += found

    group.run_on_all(count_mine, "count")
    mine = int(counts.sum())
    group.sum_(counts)
    return counts, mine


class VocabularyRules(NamedTuple):
    """The rules for which characters a vocabulary keeps.

    Attributes:
        min_count: the minimum count of a kept character.
        max_vocab: the maximum vocabulary size, UNKNOWN included; 0 is unlimited. The most frequent characters are kept,
            and among equally frequent ones those with smaller code points.
    """

    min_count: int = 1
    max_vocab: int = 0


def choose_vocabulary(counts: np.ndarray, min_count: int, max_vocab: int) -> Vocabulary:
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
    texts: TextShard, group: RankGroup, vocabulary: Vocabulary, mine: int, path: Path, advance: Advance
) -> None:
    """Write every rank's tokens after those of the preceding ranks; the root writes the header.

    Args:
        texts: this rank's shard.
        group: all ranks.
        vocabulary: of all texts.
        mine: number of characters of this shard.
        path: of the token file.
        advance: receives the number of encoded bytes of text.

    Raises:
        UserError: when the file cannot be written.
    """
    dtype = token_type(len(vocabulary))
    table = np.full(CODE_POINTS, vocabulary.unknown or 0, dtype=dtype)
    table[vocabulary.code_points] = np.arange(len(vocabulary))
    lengths = group.allgather_object(mine, "characters")
    header = npy_header(dtype, sum(lengths))

    def write_mine() -> None:
        offset = len(header) + sum(lengths[: group.rank]) * dtype.itemsize
        if group.is_root:
            shared.write(0, header)
        for text in texts.read(advance):
            data = table[code_points(text)].tobytes()
            shared.write(offset, data)
            offset += len(data)

    with group.create_file(path) as shared:
        group.run_on_all(write_mine, "write")
        group.run_on_all(shared.sync, "sync")


def hash_blocks(path: Path, size: int, group: RankGroup, advance: Advance) -> List[str]:
    """Return the SHA-256 of every BLOCK bytes of a file, in order; each rank reads back a range of the blocks.

    Raises:
        UserError: when the file cannot be read or is shorter than `size`.
    """
    blocks = range(0, size, BLOCK)
    first, last = (len(blocks) * rank // group.size for rank in (group.rank, group.rank + 1))
    mine: List[str] = []

    def hash_mine() -> None:
        with LocalFile(path) as shared:
            for start in blocks[first:last]:
                digest, stop = hashlib.sha256(), min(size, start + BLOCK)
                for offset in range(start, stop, CHUNK_SIZE):
                    data = shared.read(offset, min(CHUNK_SIZE, stop - offset))
                    if len(data) < min(CHUNK_SIZE, stop - offset):
                        raise UserError(f"{path}: is shorter than what was written to it", ExitStatus.CANNOT_WRITE)
                    digest.update(data)
                    advance(len(data))
                mine.append(digest.hexdigest())

    group.run_on_all(hash_mine, "hash")
    return [digest for each in group.allgather_object(mine, "blocks") for digest in each]


def prepare_corpus(
    texts: TextShard, group: RankGroup, folder: Path, rules: VocabularyRules, progress: Progress
) -> "tuple[Manifest, bytes]":
    """Count the characters, write the token file and hash it.

    Args:
        texts: this rank's shard.
        group: all ranks, each with a shard of the texts.
        folder: of the token file.
        rules: for the characters to keep.
        progress: creates the progress callback of a phase.

    Returns:
        The manifest and the bytes of vocabulary.json, both to be written by the root.

    Raises:
        CollectiveError: when a text is not UTF-8, the texts are empty, or a file cannot be read or written.
    """
    with progress("counting", texts.stop - texts.start) as advance:
        counts, mine = count_characters(texts, group, advance)
    vocabulary = choose_vocabulary(counts, rules.min_count, rules.max_vocab)
    if not len(vocabulary):
        raise CollectiveError("TEXT: the files contain no characters: give at least one that does", ExitStatus.BAD_DATA)
    with progress("encoding", texts.stop - texts.start) as advance:
        write_tokens(texts, group, vocabulary, mine, folder / TOKENS, advance)
    chars, dtype = int(counts.sum()), token_type(len(vocabulary))
    size = len(npy_header(dtype, chars)) + chars * dtype.itemsize
    with progress("checking", size // group.size) as advance:
        blocks = hash_blocks(folder / TOKENS, size, group, advance)
    kept = counts[vocabulary.code_points]
    unknown = chars - int(kept.sum())
    if vocabulary.unknown is not None:
        kept[vocabulary.unknown] += unknown
    vocabulary_file = vocabulary_json(vocabulary, kept.tolist())
    manifest = Manifest(
        files=[(file.path.name, file.size) for file in texts.files],
        chars=chars,
        unknown=unknown,
        min_count=rules.min_count,
        max_vocab=rules.max_vocab,
        first_lines=group.run_on_all(texts.first_lines, "lines"),
        blocks=blocks,
        vocabulary=hashlib.sha256(vocabulary_file).hexdigest(),
        keeps_newlines=texts.keeps_newlines,
    )
    return manifest, vocabulary_file
