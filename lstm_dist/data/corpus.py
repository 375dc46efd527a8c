"""Reading of text files, the vocabulary, and conversion between characters and tokens.

As in the D2L chapter, line ends become spaces, unless they are kept, and the text is cut to its first `max_chars`
characters. For text that does not fit in memory see token_dataset.py.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Iterator, List, Optional, Sequence

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

from lstm_dist.data.archives import read_bytes, too_large
from lstm_dist.data.token_file import Tokens
from lstm_dist.encoding import decode_text
from lstm_dist.errors import ExitStatus, UserError

PACKAGED = Path(__file__).with_name("corpora") / "songs.zh.txt"

# Replaces the characters that are too rare for the vocabulary: Unicode's replacement character.
UNKNOWN = "\ufffd"


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
        tokens: (characters after the cut,), of an integer type, or a TokenFile.
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


def load_corpus(
    paths: Sequence[Path], max_chars: int, max_bytes: int, encoding: Optional[str] = None, keeps_newlines: bool = False
) -> Corpus:
    """Read a corpus.

    Args:
        paths: text files, which are concatenated; none are the packaged songs.
        max_chars: number of characters to keep; 0 keeps all.
        max_bytes: limit of the size of the text.
        encoding: of the text; None detects UTF-8, UTF-16 and UTF-32.
        keeps_newlines: whether line ends stay what they are instead of becoming spaces.

    Raises:
        UserError: naming `--corpus`, unless they are readable texts of at most `max_bytes` together.
    """
    source = name_files([path.name for path in paths]) if paths else "the packaged songs"
    content = "".join(_read_texts(paths or [PACKAGED], max_bytes, encoding))
    # Without keeping them, \r\r\n has always become one space here, on which the resuming of older runs depends.
    content = join_lines(content, "\n") if keeps_newlines else content.replace("\r\n", "\n")
    whole = content if keeps_newlines else join_lines(content)
    text = whole[:max_chars] if max_chars else whole
    if not text.strip():
        raise UserError(
            f"--corpus {name_files([str(path) for path in paths])}: contains no text: give a file with at least a few "
            "thousand characters",
            ExitStatus.BAD_DATA,
        )
    vocabulary = Vocabulary(text)
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Corpus(source, len(whole), first_lines(content[: len(text)]), vocabulary, vocabulary.encode(text), digest)


def _read_texts(paths: Sequence[Path], max_bytes: int, encoding: Optional[str]) -> Iterator[str]:
    """Yield the texts of the files, of at most `max_bytes` together."""
    size = 0
    for path in paths:
        raw = read_bytes(path, max_bytes)
        size += len(raw)
        if size > max_bytes:
            raise too_large(f"--corpus {path} and those before it", max_bytes)
        yield decode_text(raw, f"--corpus {path}", encoding)


def name_files(names: Sequence[str]) -> str:
    """Return a short phrase that names the files: "a.txt and 2 more"."""
    first, *others = names
    return f"{first} and {len(others)} more" if others else first


def join_lines(text: str, end: str = " ") -> str:
    r"""Return the text with each line end, \r\n included, replaced by one space or another `end`."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\n", end)


def first_lines(text: str) -> List[str]:
    """Return the first three lines that are not empty."""
    return [line.strip() for line in text.splitlines() if line.strip()][:3]


def code_points(text: str) -> np.ndarray:
    """Return the code points, as uint16 if all are below 2^16, which is half the size and faster to convert."""
    short = text.encode("utf-16-le")
    if len(short) == 2 * len(text):
        return np.frombuffer(short, dtype="<u2")
    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")
