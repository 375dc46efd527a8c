"""Text files as they are stored: plain, compressed, or the one text in an archive.

What a file is, is told by its first bytes and never by its name. Archives are read in memory, and nothing in them is
trusted: neither names nor sizes.
"""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath
from typing import IO, Any, Callable, Dict, List, NamedTuple, Sequence, cast

from lstm_dist.encoding import not_a_text
from lstm_dist.errors import ExitStatus, UserError

# Limits against malicious archives; no archive of a text exceeds them.
_MAX_MEMBERS, _MAX_RATIO = 16, 200

_TAR_BLOCK = tarfile.BLOCKSIZE
HEAD = _TAR_BLOCK  # bytes that tell what a file is
_COMPRESSED: Dict[str, Callable[[IO[bytes]], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "xz": lzma.LZMAFile,
    "lzma": lzma.LZMAFile,
}
ARCHIVES = (*_COMPRESSED, "zip", "tar")
_KINDS = (
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),  # an empty one
    (b"\x1f\x8b\x08", "gzip"),
    (b"\xfd7zXZ\x00", "xz"),
    (b"7z\xbc\xaf\x27\x1c", "7z"),
    (b"Rar!\x1a\x07", "RAR"),
    (b"\x28\xb5\x2f\xfd", "Zstandard"),
    (b"%PDF-", "PDF"),
    (b"{\\rtf", "RTF"),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "Word or Excel"),
    (b"\x93NUMPY", "NumPy"),
    (b"\x89PNG\r\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
)
_AFTER_BZH = (b"1AY&SY", b"\x17rE8P\x90")  # the digits of pi or, in an empty file, of its square root
_DAMAGED = (
    zipfile.BadZipFile, tarfile.TarError, gzip.BadGzipFile, zlib.error, lzma.LZMAError, EOFError, NotImplementedError,
    ValueError, IndexError, KeyError, OverflowError,
)  # fmt: skip


class _Member(NamedTuple):
    """An entry of an archive.

    Attributes:
        name: ends with a slash if it is no file.
        info: of the module zipfile or tarfile.
        is_link: whether it is a link to another file.
    """

    name: str
    info: Any
    is_link: bool


def kind_of(head: bytes) -> str:
    """Return what a file is by its first 512 bytes: one of ARCHIVES or of other known kinds, or "" for anything else.

    A text has no kind, and neither has a binary file that is not known here.
    """
    for mark, kind in _KINDS:
        if head.startswith(mark):
            return kind
    if head.startswith(b"BZh") and head[4:10] in _AFTER_BZH:
        return "bzip2"
    if head.startswith(b"]\0\0") and head[5:13] == b"\xff" * 8:  # its size is not given, as all programs write it
        return "lzma"
    return "tar" if _is_tar(head) else ""


def _is_tar(head: bytes) -> bool:
    """Return whether a file begins with a header of tar, which contains its own checksum."""
    try:
        tarfile.TarInfo.frombuf(head[:_TAR_BLOCK], "utf-8", "surrogateescape")
    except (tarfile.TarError, ValueError):
        return False
    return True


def find_texts(paths: Sequence[Path], flag: str) -> List[Path]:
    """Return the paths in this order, each folder replaced by the texts in it.

    The texts in a folder are its .txt files or, if it has none, all its files, in the order of their names. Hidden
    files and the folders in it are left out.

    Args:
        paths: of files and folders.
        flag: the flag to name in error messages.

    Raises:
        UserError: naming the folder, if there are none in it or it cannot be read.
    """
    return [text for path in paths for text in (_texts_in(path, flag) if os.path.isdir(path) else [path])]


def _texts_in(folder: Path, flag: str) -> List[Path]:
    try:
        files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith("."))
    except OSError as error:
        raise UserError(f"{flag} {folder}: cannot be read ({error.strerror})", ExitStatus.NO_INPUT) from None
    if not files:
        raise UserError(
            f"{flag} {folder}: the folder has no file in it: give a text, or a folder of them", ExitStatus.NO_INPUT
        )
    return [path for path in files if path.suffix.lower() == ".txt"] or files


def read_bytes(path: Path, max_bytes: int) -> bytes:
    """Read a text file, compressed or in an archive or neither, of at most `max_bytes` uncompressed bytes.

    Raises:
        UserError: for a missing, unreadable, damaged, unsafe or too large file, and for one of a kind that is no text.
    """
    name = f"--corpus {path}"
    try:
        with path.open("rb") as file:
            data = _read(file, name, max_bytes)
    except FileNotFoundError:
        raise UserError(f"{name}: no such file", ExitStatus.NO_INPUT) from None
    except _DAMAGED as error:
        raise _damaged(name, error) from None
    except (OSError, RuntimeError) as error:
        if isinstance(error, OSError) and error.errno is None:  # of a decompressor, not of the system
            raise _damaged(name, error) from None
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{name}: cannot be read ({reason})", ExitStatus.NO_INPUT) from None
    kind = kind_of(data[:HEAD])
    if kind:
        raise not_a_text(name, kind)
    return data


def _damaged(name: str, error: Exception) -> UserError:
    return UserError(f"{name}: the archive is damaged or of an unknown format ({error})", ExitStatus.BAD_DATA)


def _read(file: IO[bytes], name: str, max_bytes: int) -> bytes:
    """Return the bytes of the text in an open file of any kind."""
    if not file.seekable():  # a pipe
        file = io.BytesIO(_read_capped(file, name, max_bytes))
    kind = kind_of(file.read(HEAD))
    file.seek(0)
    if kind == "zip":
        return _read_zip(file, name, max_bytes)
    data = _read_capped(_COMPRESSED[kind](file) if kind in _COMPRESSED else file, name, max_bytes)
    return _read_tar(data, name, max_bytes) if _is_tar(data) else data


def _read_capped(file: IO[bytes], name: str, max_bytes: int) -> bytes:
    # Read in pieces, because a single read allocates the requested size, or the size that the archive's header claims.
    data = bytearray()
    while len(data) <= max_bytes:
        piece = file.read(2**20)
        if not piece:
            return bytes(data)
        data += piece
    raise too_large(name, max_bytes)


def too_large(name: str, max_bytes: int) -> UserError:
    """Return the error for a text of more than `max_bytes`."""
    return UserError(
        f"{name}: its text is larger than --max-corpus-bytes {max_bytes:,}: prepare it, unpacked, with "
        "jobs/prepare.py, which takes a text of any size, or raise the limit if the file is trusted",
        ExitStatus.BAD_DATA,
    )


def _read_zip(file: IO[bytes], name: str, max_bytes: int) -> bytes:
    with zipfile.ZipFile(file) as archive:
        members = [
            _Member(_name_in_zip(info), info, stat.S_ISLNK(info.external_attr >> 16))
            for info in archive.infolist()
        ]  # fmt: skip
        if any(member.name in ("[Content_Types].xml", "mimetype") for member in members):
            raise UserError(f"{name}: is an office document or an e-book: save it as plain text", ExitStatus.BAD_DATA)
        info = _only_text(members, "zip", name)
        if info.flag_bits & 1:
            raise UserError(
                f"{name}: {info.filename!r} is encrypted: give a zip without a password", ExitStatus.BAD_DATA
            )
        if info.file_size > _MAX_RATIO * info.compress_size:
            raise UserError(
                f"{name}: refused, {info.filename!r} claims to expand more than {_MAX_RATIO} times; unzip it yourself "
                "if the file is trusted",
                ExitStatus.BAD_DATA,
            )
        with archive.open(info) as member:
            return _read_capped(member, name, max_bytes)


def _name_in_zip(info: zipfile.ZipInfo) -> str:
    """Return the name of an entry as it was written; unless it is marked as UTF-8, Python reads it as code page 437."""
    if info.flag_bits & 0x800:
        return info.filename
    raw = info.filename.encode("cp437")
    for codec in ("utf-8", "gb2312"):
        with contextlib.suppress(UnicodeDecodeError):
            return raw.decode(codec)
    return info.filename


def _read_tar(data: bytes, name: str, max_bytes: int) -> bytes:
    members: List[_Member] = []
    with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as archive:
        for info in archive:
            is_link = info.issym() or info.islnk()
            members.append(_Member(info.name + "/" * (not info.isfile() and not is_link), info, is_link))
            if len(members) > _MAX_MEMBERS:
                break  # refused below, without reading the headers of the others
        file = archive.extractfile(_only_text(members, "tar", name))
        return _read_capped(cast(IO[bytes], file), name, max_bytes)


def _only_text(members: Sequence[_Member], kind: str, name: str) -> Any:
    """Return the only text of an archive: its only .txt file or, if it has none, its only file.

    Raises:
        UserError: if there are several, too many entries, an unsafe name, or the text is a link.
    """
    if len(members) > _MAX_MEMBERS:
        raise UserError(
            f"{name}: refused, it has more than {_MAX_MEMBERS} entries: give a {kind} of the text alone",
            ExitStatus.BAD_DATA,
        )
    for member in members:
        path = PurePosixPath(member.name.replace("\\", "/"))
        if path.is_absolute() or ".." in path.parts or ":" in "".join(path.parts[:1]):
            raise UserError(
                f"{name}: refused, it contains the unsafe name {member.name!r}: leave it out", ExitStatus.BAD_DATA
            )
    files = [member for member in members if not _is_of_the_system(member.name)]
    texts = [member for member in files if member.name.lower().endswith(".txt")]
    chosen = texts or files
    if len(chosen) != 1:
        found = ", ".join(repr(member.name) for member in chosen[:5]) or "none"
        raise UserError(
            f"{name}: a {kind} must contain exactly one .txt file, this one contains {len(texts)} ({found}): "
            "give one with the text alone, or unpack it and give the folder",
            ExitStatus.BAD_DATA,
        )
    if chosen[0].is_link:
        raise UserError(
            f"{name}: {chosen[0].name!r} is a symbolic link: give a {kind} of the file itself", ExitStatus.BAD_DATA
        )
    return chosen[0].info


def _is_of_the_system(name: str) -> bool:
    """Return whether an entry is a folder or a hidden file, such as those that macOS adds to archives."""
    return name.endswith("/") or name.startswith("__MACOSX/") or PurePosixPath(name).name.startswith(".")
