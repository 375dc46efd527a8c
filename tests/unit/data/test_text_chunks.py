"""The chunks of a text contain each character once for any cuts; invalid UTF-8 is reported with its offset."""

import gzip
import lzma
from pathlib import Path
from typing import List

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lstm_dist.data.corpus import load_corpus
from lstm_dist.data.text_chunks import LOOKAHEAD, Chunk, TextFile, chunks, decode, find_text_files
from lstm_dist.errors import UserError

# Characters of one, two, three and four bytes, and line ends, of which \r\n may be cut in two.
TEXTS = st.text(st.sampled_from("aé中😀\r\n\ufeff"), max_size=12)


def pieces(raw: bytes, cuts: List[int], line_end: str = " ") -> str:
    """Return the characters of the chunks between the cuts, each decoded from its own bytes and the lookahead."""
    edges = sorted({0, len(raw), *cuts})
    file = TextFile(Path("text"), len(raw))
    return "".join(decode(Chunk(file, a, b), raw[a : b + LOOKAHEAD], line_end) for a, b in zip(edges, edges[1:]))


def plain(text: str) -> str:
    return (text[1:] if text[:1] == "\ufeff" else text).replace("\r\n", " ").replace("\n", " ").replace("\r", " ")


@given(TEXTS)
def test_text_is_preserved_at_every_single_cut(text: str):
    raw = text.encode()
    for cut in range(len(raw) + 1):
        assert pieces(raw, [cut]) == plain(text)


@given(TEXTS)
def test_line_ends_are_kept_at_every_single_cut(text: str):
    raw = text.encode()
    whole = (text[1:] if text[:1] == "\ufeff" else text).replace("\r\n", "\n").replace("\r", "\n")
    for cut in range(len(raw) + 1):
        assert pieces(raw, [cut], "\n") == whole


@given(TEXTS, st.lists(st.integers(0, 48), max_size=8))
def test_text_is_preserved_at_several_cuts(text: str, cuts: List[int]):
    raw = text.encode()
    assert pieces(raw, [cut for cut in cuts if cut < len(raw)]) == plain(text)


@given(TEXTS)
def test_text_is_preserved_in_chunks_of_one_byte(text: str):
    raw = text.encode()
    assert pieces(raw, list(range(len(raw)))) == plain(text)


def test_chunks_contain_the_text_that_training_reads(tmp_path: Path):
    raw = "\ufeff我们走\r\n你们看\r他们唱\n\n".encode()
    (tmp_path / "a.txt").write_bytes(raw)
    assert pieces(raw, [5, 6, 7, 13]) == load_corpus([tmp_path / "a.txt"], 0, 10**6).text


@pytest.mark.parametrize(
    ("raw", "byte"),
    [
        (b"abc\x80def", 3),
        (b"\x80abcdef", 0),
        ("中中".encode() + b"\xe4\xb8", 6),
        ("中".encode() + b"\xe4\xb8a" + "中".encode(), 3),
        (b"a\x80\x80\x80\x80\x80\x80\x80b", 1),
        (b"abc\xff\xfe", 3),
        (b"abc\xed\xa0\x80d", 3),
    ],
)
def test_invalid_utf8_is_reported_with_its_offset_at_any_cut(raw: bytes, byte: int):
    for cut in range(len(raw) + 1):
        with pytest.raises(UserError, match=rf"^TEXT text: not UTF-8, the first bad byte is 0x\w\w at offset {byte}: "):
            pieces(raw, [cut])


def test_chunks_cover_every_byte_of_all_files_once():
    files = [TextFile(Path(name), size) for name, size in (("a", 10), ("empty", 0), ("b", 3), ("c", 17))]
    for size in (1, 2, 3, 7):
        found = [
            (chunk.file.path.name, byte)
            for rank in range(size)
            for chunk in chunks(files, 30 * rank // size, 30 * (rank + 1) // size, 4)
            for byte in range(chunk.start, chunk.stop)
        ]
        assert found == [(file.path.name, byte) for file in files for byte in range(file.size)]


def test_archives_missing_files_and_folders_are_refused(tmp_path: Path):
    for name, data in {"zip": b"PK\3\4", "gzip": gzip.compress(b"a"), "xz": lzma.compress(b"a")}.items():
        (tmp_path / "a.txt").write_bytes(data)
        words = rf"a\.txt: is a {name} archive, which cannot be read in chunks: unpack it first"
        with pytest.raises(UserError, match=words):
            find_text_files([tmp_path / "a.txt"])
    (tmp_path / "a.txt").write_bytes(b"%PDF-1.7\n")
    with pytest.raises(UserError, match=r"a\.txt: is no text, but a PDF file"):
        find_text_files([tmp_path / "a.txt"])
    (tmp_path / "a.zip").write_bytes(b"a text, whatever its name")
    assert [file.codec for file in find_text_files([tmp_path / "a.zip"])] == ["utf-8"]
    with pytest.raises(UserError, match="nothing: no such file"):
        find_text_files([tmp_path / "nothing"])
    with pytest.raises(UserError, match="^TEXT /dev/null: is not a file"):
        find_text_files([Path("/dev/null")])


def test_folder_stands_for_the_texts_in_it(tmp_path: Path):
    for name in ("b.txt", "a.TXT", "cover.jpg", ".hidden.txt", "folder/c.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("text")
    (tmp_path / "folder" / "d").write_text("text")
    (tmp_path / "names").mkdir()
    (tmp_path / "names" / "2").write_text("text")
    (tmp_path / "names" / "1").write_text("text")
    given = [tmp_path / "names", tmp_path / "cover.jpg", tmp_path, tmp_path / "folder"]
    names = [str(file.path.relative_to(tmp_path)) for file in find_text_files(given)]
    assert names == ["names/1", "names/2", "cover.jpg", "a.TXT", "b.txt", "folder/c.txt"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match=f"^TEXT {tmp_path}/empty: the folder has no file in it: give a text"):
        find_text_files([tmp_path / "empty"])


def test_encoding_is_detected_or_given(tmp_path: Path):
    for codec in ("utf-8-sig", "utf-16-le", "utf-32-be"):
        (tmp_path / "a").write_bytes("明月几时有\n".encode(codec) * 9)
        (file,) = find_text_files([tmp_path / "a"])
        assert file.codec == codec.replace("-sig", "")
    assert [file.codec for file in find_text_files([tmp_path / "a"], "utf32")] == ["utf-32-be"]
    (tmp_path / "a").write_text("明月几时有", encoding="utf-8")
    assert [file.codec for file in find_text_files([tmp_path / "a"], "UTF8")] == ["utf-8"]


def test_control_characters_are_accepted_in_a_given_encoding(tmp_path: Path):
    (tmp_path / "a").write_bytes("가나다\n".encode("iso2022_kr") * 9)
    with pytest.raises(UserError, match="^TEXT .*: is no text, as more than 1 % of it are control characters"):
        find_text_files([tmp_path / "a"])
    assert [file.codec for file in find_text_files([tmp_path / "a"], "iso2022_kr")] == ["iso2022_kr"]
