"""Reading of text files, the vocabulary, and conversion between characters and tokens.

A corpus is a `.txt` file, a `.zip` that holds one text file, or a `.gz`. Line ends become spaces and the text is cut to
its first `max_chars` characters, as in the D2L chapter. For text that does not fit in memory see token_dataset.py.
"""

import gzip
import hashlib
import lzma
import stat
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Iterable, List, Optional, Sequence, cast

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

from lstm_dist.data.token_file import Tokens
from lstm_dist.errors import ExitStatus, UserError

PACKAGED = Path(__file__).with_name("corpora") / "songs.zh.txt"

# Replaces the characters that are too rare for the vocabulary: Unicode's replacement character.
UNKNOWN = "\ufffd"

# Limits against malicious archives; no zip of a text exceeds them.
_MAX_MEMBERS, _MAX_RATIO = 16, 200

_DAMAGED = (zipfile.BadZipFile, gzip.BadGzipFile, zlib.error, lzma.LZMAError)


class Vocabulary:
    """The characters that a model knows, sorted by code point, so that runs on the same text use the same tokens.

    Attributes:
        characters: all of them; a token is an index into this.
        code_points: (len(self),) uint32, of the characters.
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(sorted(set(characters)))
        self.code_points = code_points(self.characters).astype(np.uint32)

    def __len__(self) -> int:
        return len(self.characters)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and self.characters == other.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    @property
    def unknown(self) -> Optional[int]:
        """Return the token of UNKNOWN; None if the vocabulary has every character of its corpus."""
        index = self.characters.find(UNKNOWN)
        return None if index < 0 else index

    def missing(self, text: str) -> str:
        """Return the distinct characters of `text` that the vocabulary lacks, in order of appearance."""
        return "".join(c for c in dict.fromkeys(text) if c not in self.characters)

    def encode(self, text: str) -> np.ndarray:
        """Return the int32 tokens of `text`, in [0, len(self)).

        Raises:
            UserError: if the vocabulary lacks a character; the message names it.
        """
        missing = self.missing(text)
        if missing:
            named = ", ".join(f"{c!r} (U+{ord(c):04X})" for c in missing[:5])
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            raise UserError(
                f"the vocabulary of {len(self):,} characters lacks {named}{more}: use characters of the corpus"
            )
        return np.searchsorted(self.code_points, code_points(text)).astype(np.int32)

    def decode(self, tokens: "ArrayLike") -> str:
        """Return the characters of `tokens`."""
        points = self.code_points[np.asarray(tokens, dtype=np.intp)]
        return bytes(points.astype("<u4")).decode("utf-32-le")


@dataclass(frozen=True)
class Corpus:
    """A tokenized text to train on.

    Attributes:
        source: name of the source, for messages.
        total_chars: number of characters before the cut.
        first_lines: the beginnings of its first lines, before line ends are replaced; samples may start with them.
        vocabulary: the sorted set of its characters.
        tokens: (characters after the cut,), of an integer type, or a TokenFile; line ends are spaces.
        digest: SHA-256, equal on two ranks if and only if they read the same text.
    """

    source: str
    total_chars: int
    first_lines: Sequence[str]
    vocabulary: Vocabulary
    tokens: Tokens
    digest: str

    @property
    def text(self) -> str:
        """Return the characters."""
        return self.vocabulary.decode(np.asarray(self.tokens))

    def describe(self) -> str:
        """Return one phrase: "first 20,000 of 64,925 characters of lyrics.txt.zip, 1,465 distinct"."""
        extent = f"all {self.total_chars:,}"
        if len(self.tokens) < self.total_chars:
            extent = f"first {len(self.tokens):,} of {self.total_chars:,}"
        return f"{extent} characters of {self.source}, {len(self.vocabulary):,} distinct"


def load_corpus(path: Optional[Path], max_chars: int, max_bytes: int) -> Corpus:
    """Read a corpus; `path` None is the packaged one, `max_chars` 0 keeps all characters.

    Raises:
        UserError: naming `--corpus`, unless it is a readable UTF-8 text of at most `max_bytes`.
    """
    raw = read_bytes(path or PACKAGED, max_bytes)
    source = path.name if path else "the packaged songs"
    try:
        content = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(f"--corpus {path}", raw[error.start], error.start) from None
    if content.startswith("\ufeff"):
        content = content[1:]
    content = content.replace("\r\n", "\n")
    whole = join_lines(content)
    text = whole[:max_chars] if max_chars else whole
    if not text.strip():
        raise UserError(
            f"--corpus {path}: contains no text: give a file with at least a few thousand characters",
            ExitStatus.BAD_DATA,
        )
    vocabulary = Vocabulary(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Corpus(source, len(whole), first_lines(content[: len(text)]), vocabulary, vocabulary.encode(text), digest)


def join_lines(text: str) -> str:
    r"""Return the text with each line end, \r\n included, replaced by one space."""
    return text.replace("\r\n", "\n").replace("\n", " ").replace("\r", " ")


def first_lines(text: str) -> List[str]:
    """Return the first three lines that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()][:3]


def code_points(text: str) -> np.ndarray:
    """Return the code points, as uint16 if all are below 2^16, which is half the size and faster to convert."""
    short = text.encode("utf-16-le")
    if len(short) == 2 * len(text):
        return np.frombuffer(short, dtype="<u2")
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def not_utf8(name: str, byte: int, offset: int) -> UserError:
    """Return the error for a file that is not UTF-8."""
    return UserError(
        f"{name}: not UTF-8, the first bad byte is 0x{byte:02x} at offset {offset}: convert it, for example with "
        "`iconv -f gb18030 -t utf-8`",
        ExitStatus.BAD_DATA,
    )


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a text file, the one text file of a `.zip`, or a `.gz`, of at most `max_bytes` uncompressed bytes.

    Archives are read in memory and never unpacked to disk.

    Raises:
        UserError: for a missing, unreadable, damaged, unsafe or too large file.
    """
    try:
        with path.open("rb") as file:
            if path.suffix == ".zip":
                return _read_zip(file, path, max_bytes)
            if path.suffix == ".gz":
                return _read_capped(cast(IO[bytes], gzip.GzipFile(fileobj=file)), path, max_bytes)
            return _read_capped(file, path, max_bytes)
    except FileNotFoundError:
        raise UserError(f"--corpus {path}: no such file", ExitStatus.NO_INPUT) from None
    except (*_DAMAGED, EOFError, NotImplementedError, ValueError, IndexError) as error:
        raise UserError(
            f"--corpus {path}: the archive is damaged or of an unknown format ({error})", ExitStatus.BAD_DATA
        ) from None
    except (OSError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"--corpus {path}: cannot be read ({reason})", ExitStatus.NO_INPUT) from None


def _read_zip(file: IO[bytes], path: Path, max_bytes: int) -> bytes:
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        if len(members) > _MAX_MEMBERS:
            raise UserError(
                f"--corpus {path}: refused, it has {len(members):,} entries: give a zip of the text alone",
                ExitStatus.BAD_DATA,
            )
        for member in members:
            name = PurePosixPath(member.filename.replace("\\", "/"))
            if name.is_absolute() or ".." in name.parts or ":" in "".join(name.parts[:1]):
                raise UserError(
                    f"--corpus {path}: refused, it contains the unsafe name {member.filename!r}: leave it out",
                    ExitStatus.BAD_DATA,
                )
        texts = [m for m in members if m.filename.endswith(".txt") and not m.filename.startswith("__MACOSX/")]
        if len(texts) != 1:
            found = ", ".join(repr(m.filename) for m in texts[:5]) if texts else "none"
            raise UserError(
                f"--corpus {path}: a zip must contain exactly one .txt file, this one contains {len(texts)} ({found})",
                ExitStatus.BAD_DATA,
            )
        if texts[0].flag_bits & 1:
            raise UserError(
                f"--corpus {path}: {texts[0].filename!r} is encrypted: give a zip without a password",
                ExitStatus.BAD_DATA,
            )
        if stat.S_ISLNK(texts[0].external_attr >> 16):
            raise UserError(
                f"--corpus {path}: {texts[0].filename!r} is a symbolic link: give a zip of the file itself",
                ExitStatus.BAD_DATA,
            )
        if texts[0].file_size > _MAX_RATIO * texts[0].compress_size:
            raise UserError(
                f"--corpus {path}: refused, {texts[0].filename!r} claims to expand more than {_MAX_RATIO} times; unzip "
                "it yourself if the file is trusted",
                ExitStatus.BAD_DATA,
            )
        with archive.open(texts[0]) as member_file:
            return _read_capped(member_file, path, max_bytes)


def _read_capped(file: IO[bytes], path: Path, max_bytes: int) -> bytes:
    # Read in pieces, because a single read allocates the requested size, or the size that the archive's header claims.
    data = bytearray()
    while len(data) <= max_bytes:
        piece = file.read(2**20)
        if not piece:
            return bytes(data)
        data += piece
    raise UserError(
        f"--corpus {path}: expands to more than --max-corpus-bytes {max_bytes:,}; raise that if the file is trusted",
        ExitStatus.BAD_DATA,
    )
