"""A prepared corpus: a folder with a token file, of which every worker reads only its own streams.

    tokens.npy        the tokens of the text, in the smallest unsigned type that fits; numpy.load reads it
    vocabulary.json   the characters and how often each occurs
    manifest.json     source files, counts, and hashes that detect damage; written last

The folder is written under another name and renamed after it is complete.
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

from lstm_dist.data.archives import find_texts
from lstm_dist.data.corpus import Corpus, Vocabulary, load_corpus, name_files
from lstm_dist.data.token_file import TOKENS, TokenFile, damaged
from lstm_dist.errors import ExitStatus, UserError
from lstm_dist.files import LOCK, cannot_write, claim, sync

FORMAT = 1
VOCABULARY, MANIFEST = "vocabulary.json", "manifest.json"
BLOCK = 2**26  # bytes of the token file per hash, so that the ranks can share the hashing


@dataclass(frozen=True, config=ConfigDict(extra="forbid"))
class Manifest:
    """The contents of a prepared corpus; independent of the number of ranks that prepared it.

    Attributes:
        files: name and size in bytes of every text, in order; the size in UTF-8.
        chars: number of characters of all texts.
        unknown: number of characters that were too rare for the vocabulary.
        first_lines: the beginnings of the first lines.
        blocks: SHA-256 of every BLOCK bytes of tokens.npy.
        vocabulary: SHA-256 of vocabulary.json.
        keeps_newlines: whether line ends are what they were; otherwise they are spaces.
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
    keeps_newlines: bool = False

    @property
    def digest(self) -> str:
        """Return a SHA-256 of the tokens and the vocabulary."""
        return hashlib.sha256("".join([*self.blocks, self.vocabulary]).encode()).hexdigest()

    def describe(self) -> str:
        """Return a short phrase that names the files."""
        return name_files([name for name, _ in self.files])


def vocabulary_json(vocabulary: Vocabulary, counts: Sequence[int]) -> bytes:
    """Return the bytes of vocabulary.json; counts[token] is how often the token occurs."""
    facts = {"characters": vocabulary.characters, "counts": [int(count) for count in counts]}
    return (json.dumps(facts, ensure_ascii=False) + "\n").encode()


class StagingDir:
    """The staging directory of a corpus in preparation, `<out>.partial`, locked by this job until it is committed.

    Attributes:
        folder: the new contents of `out`, inside the staging directory, which also keeps the previous contents.
        copies: a folder for copies of the texts, beside it; removed with the staging directory.
    """

    def __init__(self, out: Path, overwrite: bool) -> None:
        """Lock and clear the staging directory, including what an interrupted job left.

        Raises:
            UserError: naming --out, when it exists already, another job is writing it, or it is not writable.
        """
        self.out, self._overwrite = Path(os.path.abspath(out)), overwrite
        if not self.out.name:
            raise UserError(f"--out {out}: is not a valid folder name, give another", ExitStatus.CANNOT_CREATE)
        self._staging = self.out.with_name(f"{self.out.name}.partial")
        self.folder, self._previous = self._staging / "new", self._staging / "before"
        self.copies = self._staging / "copies"
        self._lock: IO[str] = claim(self._staging, "--out")
        try:
            if self._previous.exists() and not self.out.exists():  # a job ended between the two renames
                os.replace(self._previous, self.out)
            _require_replaceable(self.out, overwrite)
            for stale in (self.folder, self._previous, self.copies):
                if stale.exists():
                    shutil.rmtree(stale)
            self.folder.mkdir()
        except OSError as error:
            self.close()
            raise cannot_write(self.out, str(error.strerror), "--out") from None
        except UserError:
            self.close()
            raise

    def commit(self, manifest: Manifest, vocabulary: bytes) -> None:
        """Write the vocabulary and the manifest, then move the folder to `out`.

        Raises:
            UserError: naming --out, when another job has created it or it is not writable.
        """
        _require_replaceable(self.out, self._overwrite)  # another job may have created it since
        try:
            _write_durably(self.folder / VOCABULARY, vocabulary)
            _write_durably(self.folder / MANIFEST, (json.dumps(_to_json(manifest), indent=1) + "\n").encode())
            if self.out.exists():
                os.replace(self.out, self._previous)
            os.replace(self.folder, self.out)
        except OSError as error:
            raise cannot_write(self.out, str(error.strerror), "--out") from None
        shutil.rmtree(self._previous, ignore_errors=True)
        self.close()

    def close(self) -> None:
        """Remove incomplete output and release the lock."""
        for incomplete in (self.folder, self.copies):
            shutil.rmtree(incomplete, ignore_errors=True)
        with contextlib.suppress(OSError):  # what cannot be removed is harmless
            (self._staging / LOCK).unlink()
            self._staging.rmdir()
        self._lock.close()


def _require_replaceable(out: Path, overwrite: bool) -> None:
    """Check that `out` does not exist, is empty, or contains a prepared corpus only and may be overwritten."""
    try:
        names = os.listdir(out) if os.path.lexists(out) else []
    except OSError as error:
        raise cannot_write(out, str(error.strerror), "--out") from None
    if names and not (overwrite and set(names) <= {TOKENS, VOCABULARY, MANIFEST}):
        what = "already contains a prepared corpus: give --overwrite, or another folder"
        if MANIFEST not in names:
            what = "contains other files: give another folder"
        raise UserError(f"--out {out}: {what}", ExitStatus.CANNOT_CREATE)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        sync(file.fileno())


def _to_json(manifest: Manifest) -> Dict[str, Any]:
    facts = {**dataclasses.asdict(manifest), "digest": manifest.digest}
    if not manifest.keeps_newlines:
        del facts["keeps_newlines"]  # so that versions without this field can read the manifest
    return facts


def read_manifest(folder: Path, flag: str = "--corpus") -> Manifest:
    """Read the manifest of a prepared corpus.

    Raises:
        UserError: naming the folder, when it is not a prepared corpus or is damaged.
    """
    try:
        facts = json.loads((folder / MANIFEST).read_bytes())
        if facts["format"] != FORMAT:
            raise UserError(
                f"{flag} {folder}: has format {facts['format']}, this program reads {FORMAT}: prepare it again",
                ExitStatus.BAD_CONFIG,
            )
        digest = facts.pop("digest")
        manifest: Manifest = TypeAdapter(Manifest).validate_python(facts)
    except OSError as error:
        is_missing = isinstance(error, FileNotFoundError)
        reason = f"it has no {MANIFEST}" if is_missing else str(error.strerror)
        raise UserError(
            f"{flag} {folder}: is not a prepared corpus ({reason}): jobs/prepare.py makes one", ExitStatus.NO_INPUT
        ) from None
    except (ValueError, KeyError, AttributeError, TypeError, ValidationError):
        raise damaged(folder, f"{MANIFEST} is not a valid manifest", flag) from None
    if manifest.digest != digest:
        raise damaged(folder, f"{MANIFEST} does not match its hash", flag)
    return manifest


def read_vocabulary(folder: Path, manifest: Manifest, flag: str = "--corpus") -> Vocabulary:
    """Read the vocabulary of a prepared corpus.

    Raises:
        UserError: naming the folder, when the vocabulary is damaged.
    """
    try:
        data = (folder / VOCABULARY).read_bytes()
    except OSError as error:
        raise damaged(folder, f"{VOCABULARY} cannot be read ({error.strerror})", flag) from None
    if hashlib.sha256(data).hexdigest() != manifest.vocabulary:
        raise damaged(folder, f"{VOCABULARY} does not match its hash", flag)
    return Vocabulary(json.loads(data)["characters"])


def open_corpus(folder: Path, max_chars: int, flag: str = "--corpus") -> Corpus:
    """Open a prepared corpus without reading its tokens into memory; `max_chars` 0 keeps all of them.

    Raises:
        UserError: naming the folder, when it is not a prepared corpus or is damaged; the tokens are not checked here.
    """
    manifest = read_manifest(folder, flag)
    vocabulary = read_vocabulary(folder, manifest, flag)
    tokens = TokenFile.open(folder, len(vocabulary), manifest.chars, flag)
    return Corpus(
        manifest.describe(), manifest.chars, manifest.first_lines, vocabulary,
        tokens[:max_chars] if max_chars else tokens, manifest.digest,
    )  # fmt: skip


def is_prepared(path: Path) -> bool:
    """Return whether a path is a prepared corpus, if possibly a damaged one, and not a text or a folder of texts.

    A manifest.json next to texts may be that of another program.
    """
    names = {name for name in (TOKENS, VOCABULARY, MANIFEST) if os.path.lexists(path / name)}
    if TOKENS in names or {VOCABULARY, MANIFEST} <= names:
        return True
    try:
        facts = json.loads((path / MANIFEST).read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(facts, dict) and {"format", "blocks", "digest"} <= facts.keys()


def load(
    paths: Sequence[Path], max_chars: int, max_bytes: int, encoding: Optional[str] = None, keeps_newlines: bool = False
) -> Corpus:
    """Read a corpus of either kind.

    Args:
        paths: a prepared corpus; or texts and folders of them, which are concatenated; none are the packaged songs.
        max_chars: number of characters to keep; 0 keeps all.
        max_bytes: limit of the size of a text.
        encoding: of a text; None detects UTF-8, UTF-16 and UTF-32.
        keeps_newlines: whether the line ends of a text stay what they are; a prepared corpus must have kept them.

    Raises:
        UserError: naming `--corpus`.
    """
    prepared = next(filter(is_prepared, paths), None)
    if encoding is not None and (prepared or not paths):
        what = f"the prepared corpus {prepared}" if prepared else "the packaged songs"
        raise UserError(f"--encoding {encoding}: has no effect on {what}: leave it out, or give a text with --corpus")
    if prepared is None:
        return load_corpus(find_texts(paths, "--corpus"), max_chars, max_bytes, encoding, keeps_newlines)
    if len(paths) > 1:
        raise UserError(
            f"--corpus {prepared}: is a prepared corpus, which cannot be combined with others: prepare the texts "
            "together"
        )
    if keeps_newlines and not read_manifest(prepared).keeps_newlines:
        raise UserError(
            f"--corpus {prepared}: has spaces instead of line ends: prepare it again with --keep-newlines",
            ExitStatus.BAD_CONFIG,
        )
    return open_corpus(prepared, max_chars)
