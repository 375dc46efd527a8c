"""What a file is, is told by its content: texts are found in every kind of archive, and other kinds are refused."""

import bz2
import contextlib
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, List

import pytest

from lstm_dist.data.archives import kind_of, read_bytes
from lstm_dist.errors import UserError

MANY = 10**6
TEXT = "海上生明月\n天涯共此时\n".encode() * 30


def tarred(files: Dict[str, bytes], how: int = tarfile.PAX_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=how) as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def tar_entry(name: str, **facts: Any) -> bytes:
    buffer, info = io.BytesIO(), tarfile.TarInfo(name)
    for key, value in facts.items():
        setattr(info, key, value)
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.addfile(info)
    return buffer.getvalue()


def zipped(files: Dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def lzma_alone(data: bytes) -> bytes:
    return lzma.compress(data, lzma.FORMAT_ALONE)


COMPRESSIONS: Dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
    "xz": lzma.compress,
    "lzma": lzma_alone,
}


@pytest.mark.parametrize("name", ["a", "a.txt", "A.ZIP", "a.gz", "download"])
def test_the_name_of_a_file_does_not_matter(tmp_path: Path, name: str):
    for pack in (bytes, zipped_alone, *COMPRESSIONS.values()):
        (tmp_path / name).write_bytes(pack(TEXT))
        assert read_bytes(tmp_path / name, MANY) == TEXT, pack


def zipped_alone(data: bytes) -> bytes:
    return zipped({"Poems/MOON.TXT": data, "cover.jpg": b"\xff\xd8\xff\xe0"})


@pytest.mark.parametrize("compression", ["none", *COMPRESSIONS])
@pytest.mark.parametrize("how", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_tar_is_read_as_its_text(tmp_path: Path, compression: str, how: int):
    files = {"./._moon.txt": b"\0\x05\x16\x07", "./moon.txt": TEXT, "./cover.png": b"\x89PNG\r\n"}
    (tmp_path / "moon").write_bytes(COMPRESSIONS.get(compression, bytes)(tarred(files, how)))
    assert read_bytes(tmp_path / "moon", MANY) == TEXT


def test_only_file_of_an_archive_needs_no_extension(tmp_path: Path):
    for pack in (zipped, tarred):
        (tmp_path / "a").write_bytes(pack({"poems/": b"", "poems/moon": TEXT, "poems/.DS_Store": b"\0\0\0\1"}))
        assert read_bytes(tmp_path / "a", MANY) == TEXT


@pytest.mark.parametrize("codec", ["utf-8", "gb2312", "cp437"])
def test_names_in_a_zip_are_shown_as_they_were_written(tmp_path: Path, codec: str):
    names = ["Lied ü.txt", "Lied ä.txt"] if codec == "cp437" else ["诗经.txt", "楚辞.txt"]
    first, second = (name.encode(codec) for name in names)
    data = zipped({"A" * len(first[:-4]) + ".txt": TEXT, "B" * len(second[:-4]) + ".txt": TEXT})  # not marked as UTF-8
    data = data.replace(b"A" * len(first[:-4]), first[:-4]).replace(b"B" * len(second[:-4]), second[:-4])
    assert f"contains 2 ('{names[0]}', '{names[1]}')" in refusal(tmp_path, data)


def test_text_is_read_from_a_pipe():
    for pack in (bytes, zipped_alone, gzip.compress):
        reading, writing = os.pipe()
        os.write(writing, pack(TEXT))
        os.close(writing)
        assert read_bytes(Path(f"/dev/fd/{reading}"), MANY) == TEXT
        os.close(reading)


@pytest.mark.parametrize(
    ("data", "kind"),
    [
        (b"PKZIP is a program", ""),
        (b"BZhang wrote this", ""),
        (b"]", ""),
        (b"", ""),
        (TEXT, ""),
        (b"\0" * 1024, ""),
        (bz2.compress(b""), "bzip2"),
        (b"Rar!\x1a\x07\x01\x00", "RAR"),
        (b"%PDF-1.7\n", "PDF"),
        (b"{\\rtf1\\ansi", "RTF"),
    ],
)
def test_kinds_are_told_by_more_than_letters(data: bytes, kind: str):
    assert kind_of(data) == kind


BAD: Dict[str, "tuple[bytes, str]"] = {
    "two texts": (tarred({"a.TXT": TEXT, "b.txt": TEXT}), "a tar must contain exactly one .txt file, this one"),
    "several files": (tarred({"a.md": TEXT, "b.md": TEXT}), "this one contains 0 ('a.md', 'b.md')"),
    "no file": (tar_entry("folder", type=tarfile.DIRTYPE), "this one contains 0 (none)"),
    "an unsafe name": (tarred({"a/../../b.txt": TEXT}), "refused, it contains the unsafe name 'a/../../b.txt'"),
    "an absolute name": (tarred({"/etc/motd": TEXT}), "refused, it contains the unsafe name '/etc/motd'"),
    "a link": (tar_entry("a.txt", type=tarfile.SYMTYPE, linkname="/etc/passwd"), "'a.txt' is a symbolic link"),
    "a hard link": (tar_entry("a.txt", type=tarfile.LNKTYPE, linkname="b"), "'a.txt' is a symbolic link"),
    "a device": (tar_entry("a.txt", type=tarfile.CHRTYPE), "this one contains 0 (none)"),
    "many entries": (tarred({f"{k}.txt": b"" for k in range(17)}), "refused, it has more than 16 entries"),
    "half of it": (tarred({"a.txt": TEXT})[:700], "the archive is damaged or of an unknown format"),
    "a gzip file in a gzip file": (gzip.compress(gzip.compress(TEXT)), "is no text, but a gzip file"),
    "a zip in a tar": (tarred({"a.zip": zipped({"a.txt": TEXT})}), "is no text, but a zip file"),
    "half a bzip2 file": (bz2.compress(TEXT)[:60], "the archive is damaged or of an unknown format"),
    "a damaged bzip2 file": (bz2.compress(TEXT)[:20] + bytes(60), "the archive is damaged or of an unknown format"),
    "half an xz file": (lzma.compress(TEXT)[:60], "the archive is damaged or of an unknown format"),
    "7z": (b"7z\xbc\xaf\x27\x1c\0\4", "is no text, but a 7z file: give a file of plain text"),
    "a document": (
        zipped({"[Content_Types].xml": b"<?xml", **{f"word/{k}.xml": b"" for k in range(20)}}),
        "is an office document or an e-book: save it as plain text",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_file_without_a_text_of_its_own_is_refused_in_one_line(tmp_path: Path, case: str):
    data, expected = BAD[case]
    assert expected in refusal(tmp_path, data)


def refusal(tmp_path: Path, data: bytes, max_bytes: int = MANY) -> str:
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_bytes(tmp_path / "a", max_bytes)
    message = str(caught.value)
    assert message.startswith(f"--corpus {tmp_path}/a: ")
    assert "\n" not in message
    return message


@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_archive_bomb_is_refused_whatever_its_kind(tmp_path: Path, compression: str):
    pack = COMPRESSIONS[compression]
    for data in (bytes(2**23), tarred({"a.txt": bytes(2**23)})):
        assert "its text is larger than --max-corpus-bytes 1,000,000: " in refusal(tmp_path, pack(data))


def test_size_that_a_tar_claims_is_not_allocated(tmp_path: Path):
    sparse = tar_entry("a.txt", pax_headers={"GNU.sparse.major": "0", "GNU.sparse.realsize": "99999999999"})
    huge = tar_entry("a.txt", size=2**33)
    for data in (huge, sparse):
        assert "damaged" in refusal(tmp_path, data) or read_bytes(tmp_path / "a", MANY) == b""


def test_damaged_tar_raises_no_other_error(tmp_path: Path):
    data = tarred({"a.txt": TEXT})
    flipped: List[bytes] = [data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1 :] for k in range(512)]
    for broken in [*flipped, *(data[:length] for length in range(0, len(data), 97))]:
        (tmp_path / "a").write_bytes(broken)
        with contextlib.suppress(UserError):
            read_bytes(tmp_path / "a", MANY)
