"""A prepared corpus: a folder of tokens, of which every worker reads only its own streams.

    tokens.npy        all characters of the text, each the smallest unsigned type that fits; numpy.load reads it
    vocabulary.json   the characters and how often each occurs
    manifest.json     from which files, how many, and the hashes by which damage is told; written last

The folder is made under another name and renamed when it is whole.
"""

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import IO, Any, Dict, List, Optional, Sequence, Tuple

from pydantic import ConfigDict, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from lstm_dist.data.corpus import Corpus, Vocabulary, load_corpus
from lstm_dist.data.token_file import TOKENS, TokenFile, damaged
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import LOCK, cannot_write, claim

FORMAT = 1
VOCABULARY, MANIFEST = "vocabulary.json", "manifest.json"
BLOCK = 2**26  # bytes of the token file under one hash, so that all ranks can compute some


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """What a prepared corpus holds; the same for any number of ranks that made it.

    Attributes:
        files: name and bytes of every text, in order.
        chars: in all of them.
        unknown: how many of these were too rare for the vocabulary.
        first_lines: the beginnings of its first lines.
        blocks: SHA-256 of every BLOCK bytes of tokens.npy.
        vocabulary: SHA-256 of vocabulary.json.
    """

    files: List[Tuple[str, int]]
    chars: int
    unknown: int
    min_count: int
    max_vocab: int
    first_lines: List[str]
    blocks: List[str]
    vocabulary: str
    format: int = FORMAT

    @property
    def digest(self) -> str:
        """SHA-256 that is equal for equal tokens of an equal vocabulary."""
        return hashlib.sha256("".join([*self.blocks, self.vocabulary]).encode()).hexdigest()

    def describe(self) -> str:
        """The files in a few words."""
        first, *others = (name for name, _ in self.files)
        return f"{first} and {len(others)} more" if others else first


def vocabulary_json(vocabulary: Vocabulary, counts: Sequence[int]) -> bytes:
    """The bytes of vocabulary.json; counts[token] is how often it occurs."""
    facts = {"characters": vocabulary.characters, "counts": [int(count) for count in counts]}
    return (json.dumps(facts, ensure_ascii=False) + "\n").encode()


class Workshop:
    """Where a prepared corpus is made: in a folder beside its place, which is this job's alone until all is done.

    Attributes:
        folder: what is to take the place of `out`; it is inside of the one that is locked, as is what was there before.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        """Begin, over what a job that was interrupted has left.

        Raises:
            UserError: naming --out, when there is something already, another job is making it, or it cannot be made.
        """
        self.out, self._overwrite = Path(os.path.abspath(out)), overwrite
        if not self.out.name:
            raise UserError(f"--out {out}: is no name for a folder", ExitStatus.CANNOT_CREATE)
        self._place = self.out.with_name(f"{self.out.name}.partial")
        self.folder, self._before = self._place / "new", self._place / "before"
        self._lock: IO[str] = claim(self._place, "--out")
        try:
            if self._before.exists() and not self.out.exists():  # a job ended between the two renames
                os.replace(self._before, self.out)
            _require_free(self.out, overwrite)
            for left in (self.folder, self._before):
                if left.exists():
                    shutil.rmtree(left)
            self.folder.mkdir()
        except OSError as error:
            self.close()
            raise cannot_write(self.out, str(error.strerror), "--out") from None
        except UserError:
            self.close()
            raise

    def finish(self, manifest: Manifest, vocabulary: bytes) -> None:
        """The vocabulary, the manifest, and then the folder takes its place.

        Raises:
            UserError: naming --out, when that cannot be.
        """
        _require_free(self.out, self._overwrite)  # which another job may have made meanwhile
        try:
            _write_durably(self.folder / VOCABULARY, vocabulary)
            _write_durably(self.folder / MANIFEST, (json.dumps(_to_json(manifest), indent=1) + "\n").encode())
            if self.out.exists():
                os.replace(self.out, self._before)
            os.replace(self.folder, self.out)
        except OSError as error:
            raise cannot_write(self.out, str(error.strerror), "--out") from None
        shutil.rmtree(self._before, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Let others come, and leave nothing behind that is not whole."""
        shutil.rmtree(self.folder, ignore_errors=True)
        with contextlib.suppress(OSError):  # in nobody's way
            (self._place / LOCK).unlink()
            self._place.rmdir()
        self._lock.close()


def _require_free(out: Path, overwrite: bool) -> None:
    try:
        held = sorted(os.listdir(out)) if os.path.lexists(out) else []
    except OSError as error:
        raise cannot_write(out, str(error.strerror), "--out") from None
    if held and not (overwrite and set(held) <= {TOKENS, VOCABULARY, MANIFEST}):
        what = "a prepared corpus already: give --overwrite, or another" if MANIFEST in held else "something else"
        raise UserError(f"--out {out}: holds {what}", ExitStatus.CANNOT_CREATE)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _to_json(manifest: Manifest) -> Dict[str, Any]:
    return {**dataclasses.asdict(manifest), "digest": manifest.digest}


def read_manifest(folder: Path, flag: str = "--corpus") -> Manifest:
    """The manifest of a prepared corpus.

    Raises:
        UserError: naming the folder, when it is none.
    """
    try:
        held = json.loads((folder / MANIFEST).read_bytes())
        if held["format"] != FORMAT:
            raise UserError(
                f"{flag} {folder}: has format {held['format']}, this program reads {FORMAT}: prepare it anew",
                ExitStatus.BAD_CONFIG,
            )
        digest = held.pop("digest")
        manifest: Manifest = TypeAdapter(Manifest).validate_python(held)
    except OSError as error:
        lacks = isinstance(error, FileNotFoundError)
        why = "jobs/prepare.py has not finished one there" if lacks else str(error.strerror)
        raise UserError(f"{flag} {folder}: is no prepared corpus ({why})", ExitStatus.NO_INPUT) from None
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError):
        raise damaged(folder, f"{MANIFEST} is not what was written", flag) from None
    if manifest.digest != digest:
        raise damaged(folder, f"{MANIFEST} is not what was written", flag)
    return manifest


def read_vocabulary(folder: Path, manifest: Manifest, flag: str = "--corpus") -> Vocabulary:
    """The vocabulary of a prepared corpus.

    Raises:
        UserError: naming the folder, when it is not what was written.
    """
    try:
        data = (folder / VOCABULARY).read_bytes()
    except OSError as error:
        raise damaged(folder, f"{VOCABULARY} cannot be read ({error.strerror})", flag) from None
    if hashlib.sha256(data).hexdigest() != manifest.vocabulary:
        raise damaged(folder, f"{VOCABULARY} is not what was written", flag)
    return Vocabulary(json.loads(data)["characters"])


def open_corpus(folder: Path, max_chars: int, flag: str = "--corpus") -> Corpus:
    """A prepared corpus, its tokens still in their file. `max_chars` 0 keeps them all.

    Raises:
        UserError: naming the folder, when it is none, or is damaged as far as can be told without reading it.
    """
    manifest = read_manifest(folder, flag)
    vocabulary = read_vocabulary(folder, manifest, flag)
    tokens = TokenFile.open(folder, len(vocabulary), manifest.chars, flag)
    return Corpus(
        manifest.describe(), manifest.chars, manifest.first_lines, vocabulary,
        tokens[:max_chars] if max_chars else tokens, manifest.digest,
    )  # fmt: skip


def load(path: Optional[Path], max_chars: int, max_bytes: int) -> Corpus:
    """A corpus of either kind: a folder is a prepared one, anything else is text; None is the packaged songs.

    Raises:
        UserError: naming `--corpus`.
    """
    if path is not None and os.path.isdir(path):
        return open_corpus(path, max_chars)
    return load_corpus(path, max_chars, max_bytes)
