"""Decoding of text files in chunks, so that each of any number of ranks reads only its own bytes.

A chunk is a range of bytes of one file. A character belongs to the chunk that contains its first byte:

    bytes of a file     E5 88 86 | E5 BC 80 | 0A        分, 开 (three bytes each) and a line end
    chunk 0             E5 88 86   E5|                  reads two bytes beyond its end: 分开
    chunk 1                          |BC 80   0A        skips the continuation bytes: the line end

So the concatenated characters of all chunks are those of the file, wherever it is cut. Other encodings do not tell
where a character begins; see transcode.py.
"""

from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Sequence

from lstm_dist.data.archives import ARCHIVES, HEAD, find_texts, kind_of
from lstm_dist.data.corpus import join_lines
from lstm_dist.encoding import SAMPLE, codec_of, has_controls, is_wide, not_a_text, undecodable, without_mark
from lstm_dist.errors import ExitStatus, UserError

_CONTINUATION_MASK, _CONTINUATION = 0b1100_0000, 0b1000_0000  # the two upper bits of a UTF-8 continuation byte
_MAX_CONTINUATION = 3  # continuation bytes of one character
LOOKAHEAD = _MAX_CONTINUATION + 1  # bytes read beyond a chunk: the rest of a character and the \n of a \r\n


class TextFile(NamedTuple):
    """A file, its size in bytes, its modification time in ns and its encoding."""

    path: Path
    size: int
    mtime_ns: int = 0
    codec: str = "utf-8"

    @classmethod
    def stat(cls, path: Path, codec: str = "utf-8") -> "TextFile":
        """Return the current state of the file; raise OSError if it is not accessible."""
        status = path.stat()
        return cls(path, status.st_size, status.st_mtime_ns, codec)


class Chunk(NamedTuple):
    """The bytes [start, stop) of a file."""

    file: TextFile
    start: int
    stop: int


def find_text_files(paths: Sequence[Path], encoding: Optional[str] = None) -> Sequence[TextFile]:
    """Return the text files of `paths`, in this order, with their encodings.

    Args:
        paths: of the files, and of folders of them.
        encoding: of all of them; None detects UTF-8, UTF-16 and UTF-32.

    Raises:
        UserError: naming the file, when one is missing, unreadable, not a file or not a text.
    """
    return [_find(path, encoding) for path in find_texts(paths, "TEXT")]


def _find(path: Path, encoding: Optional[str]) -> TextFile:
    try:
        if not path.is_file():
            what = "is not a file" if path.exists() else "no such file"
            raise UserError(f"TEXT {path}: {what}", ExitStatus.NO_INPUT)
        with path.open("rb") as file:
            codec = _codec(file.read(SAMPLE), encoding, f"TEXT {path}")
        return TextFile.stat(path, codec)
    except OSError as error:
        raise UserError(f"TEXT {path}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None


def _codec(head: bytes, encoding: Optional[str], name: str) -> str:
    """Return the encoding of a file that begins with `head`.

    Raises:
        UserError: naming the file, if it is an archive or no text.
    """
    kind = kind_of(head[:HEAD])
    if kind in ARCHIVES:
        raise UserError(f"{name}: is a {kind} archive, which cannot be read in chunks: unpack it first")
    if kind:
        raise not_a_text(name, kind)
    codec = codec_of(head, encoding)
    if encoding is None and not is_wide(codec) and has_controls(head):
        raise not_a_text(name)
    return codec


def chunks(files: Sequence[TextFile], start: int, stop: int, max_bytes: int) -> Iterator[Chunk]:
    """Yield chunks of at most `max_bytes` bytes that cover bytes [start, stop) of the concatenated files."""
    before = 0
    for file in files:
        first, last = max(0, start - before), min(file.size, stop - before)
        for offset in range(first, last, max_bytes):
            yield Chunk(file, offset, min(last, offset + max_bytes))
        before += file.size


def decode(chunk: Chunk, raw: bytes, line_end: str = " ") -> str:
    r"""Return the characters that begin in a chunk, each line end (also \r\n) as `line_end`, without byte order mark.

    Args:
        chunk: of a file.
        raw: its bytes and, as far as the file has them, the next LOOKAHEAD bytes.
        line_end: one character.

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
        bad = first + error.start
        line = raw.rfind(b"\n", 0, bad) + 1
        raise undecodable(f"TEXT {chunk.file.path}", "utf-8", chunk.start + bad, raw[line:], bad - line) from None
    if chunk.start == 0:
        text = without_mark(text)
    if text.endswith("\r") and raw[last : last + 1] == b"\n":
        text = text[:-1]
    return join_lines(text, line_end)


def changed(file: TextFile) -> UserError:
    """Return the error for a file that is not as it was when it was found."""
    return UserError(f"TEXT {file.path}: was changed while it was read: prepare it again", ExitStatus.BAD_DATA)


def _count_continuation(raw: bytes, start: int) -> int:
    """Return the number of continuation bytes from `start` on."""
    count = 0
    for byte in raw[start : start + _MAX_CONTINUATION]:
        if byte & _CONTINUATION_MASK != _CONTINUATION:
            break
        count += 1
    return count
