"""Decoding of text files in chunks, so that each of any number of ranks reads only its own bytes.

A chunk is a range of bytes of one file. A character belongs to the chunk that contains its first byte:

    bytes of a file     E5 88 86 | E5 BC 80 | 0A        分, 开 (three bytes each) and a line end
    chunk 0             E5 88 86   E5|                  reads two bytes beyond its end: 分开
    chunk 1                          |BC 80   0A        skips the continuation bytes: the line end

So the concatenated characters of all chunks are those of the file, wherever it is cut.
"""

from pathlib import Path
from typing import Iterator, NamedTuple, Sequence

from lstm_dist.data.corpus import join_lines, not_utf8
from lstm_dist.errors import ExitStatus, UserError

_CONTINUATION_MASK, _CONTINUATION = 0b1100_0000, 0b1000_0000  # the two upper bits of a UTF-8 continuation byte
_MAX_CONTINUATION = 3  # continuation bytes of one character
LOOKAHEAD = _MAX_CONTINUATION + 1  # bytes read beyond a chunk: the rest of a character and the \n of a \r\n
_ARCHIVES = (".zip", ".gz", ".bz2", ".xz", ".zst")


class TextFile(NamedTuple):
    """A file, its size in bytes and its modification time in ns."""

    path: Path
    size: int
    mtime_ns: int = 0

    @classmethod
    def stat(cls, path: Path) -> "TextFile":
        """Return the current state of the file; raise OSError if it is not accessible."""
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns)


class Chunk(NamedTuple):
    """The bytes [start, stop) of a file."""

    file: TextFile
    start: int
    stop: int


def find_text_files(paths: Sequence[Path]) -> Sequence[TextFile]:
    """Return the text files of `paths`, in this order.

    Raises:
        UserError: naming the file, when one is missing, unreadable, an archive or not a file.
    """
    found = []
    for path in paths:
        if path.suffix in _ARCHIVES:
            raise UserError(f"TEXT {path}: is an archive, which cannot be read in chunks: unpack it first")
        try:
            if not path.is_file():
                exists = path.exists()
                what = "is not a file: give the files in it" if exists else "no such file"
                raise UserError(f"TEXT {path}: {what}", ExitStatus.NO_INPUT)
            with path.open("rb"):
                found.append(TextFile.stat(path))
        except OSError as error:
            raise UserError(f"TEXT {path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    return found


def chunks(files: Sequence[TextFile], start: int, stop: int, max_bytes: int) -> Iterator[Chunk]:
    """Yield chunks of at most `max_bytes` bytes that cover bytes [start, stop) of the concatenated files."""
    before = 0
    for file in files:
        first, last = max(0, start - before), min(file.size, stop - before)
        for offset in range(first, last, max_bytes):
            yield Chunk(file, offset, min(last, offset + max_bytes))
        before += file.size


def decode(chunk: Chunk, raw: bytes) -> str:
    r"""Return the characters that begin in a chunk, each line end (also \r\n) as one space, without byte order mark.

    Args:
        chunk: of a file.
        raw: its bytes and, as far as the file has them, the next LOOKAHEAD bytes.

    Raises:
        UserError: naming the file and the byte, for what is not UTF-8.
    """
    length = chunk.stop - chunk.start
    first = _count_continuation(raw, 0) if chunk.start else 0
    if first >= length:
        return ""
    last = length + _count_continuation(raw, length)
    try:
        text = raw[first:last].decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(f"TEXT {chunk.file.path}", raw[first + error.start], chunk.start + first + error.start) from None
    if chunk.start == 0 and text.startswith("\ufeff"):
        text = text[1:]
    if text.endswith("\r") and raw[last : last + 1] == b"\n":
        text = text[:-1]
    return join_lines(text)


def _count_continuation(raw: bytes, start: int) -> int:
    """Return the number of continuation bytes from `start` on."""
    count = 0
    for byte in raw[start : start + _MAX_CONTINUATION]:
        if byte & _CONTINUATION_MASK != _CONTINUATION:
            break
        count += 1
    return count
