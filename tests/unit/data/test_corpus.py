"""The vocabulary, reading of texts, and the one-line error for each kind of invalid file."""

import gzip
import io
import time
import tracemalloc
import zipfile
from pathlib import Path
from typing import Any, Callable, Dict, Optional

import numpy as np
import pytest

from lstm_dist.data import corpus as module
from lstm_dist.data.archives import read_bytes
from lstm_dist.data.corpus import PACKAGED, Corpus, Vocabulary
from lstm_dist.errors import UserError

MANY = 10**6
TEXT = "我们走\n你们看\n他们唱\n" * 20
METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflated": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


def zipped(files: Dict[str, str], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, text in files.items():
            archive.writestr(name, text.encode())
    return buffer.getvalue()


def zip_of_bytes(data: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("a.txt", data)
    return buffer.getvalue()


def zip_with_link() -> bytes:
    link = zipfile.ZipInfo("a.txt")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(link, "/etc/passwd")
    return buffer.getvalue()


def zipped_twice() -> bytes:
    return zipped({"a.txt": TEXT, "b.txt": TEXT}).replace(b"b.txt", b"a.txt")


def load_corpus(path: Optional[Path], max_chars: int, max_bytes: int, **how: Any) -> Corpus:
    """Load a corpus of one file; None is the packaged songs."""
    return module.load_corpus([path] if path else [], max_chars, max_bytes, **how)


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


# Vocabulary


def test_vocabulary_is_sorted_for_any_order_of_the_text():
    first, second = Vocabulary("乙甲 丙甲a𠀀"), Vocabulary("𠀀a丙乙甲 甲")
    assert first.characters == " a丙乙甲𠀀"
    assert list(first.characters) == sorted(set("乙甲 丙甲a𠀀"))
    assert first == second
    assert hash(first) == hash(second)
    assert first != Vocabulary("甲")
    assert len(first) == 6


def test_decoding_inverts_encoding():
    text = "".join(map(chr, [0, 27, *range(32, 127), 0x3000, *range(0x4E00, 0x4E80), 0x10FFFF, 0x20000]))
    vocabulary = Vocabulary(text)
    tokens = vocabulary.encode(text)
    assert tokens.dtype == np.int32
    assert sorted(tokens) == list(range(len(vocabulary)))
    assert vocabulary.decode(tokens) == text
    assert vocabulary.encode("a a").tolist() == [text.index("a"), text.index(" "), text.index("a")]
    assert vocabulary.encode("").tolist() == []


def test_missing_characters_are_reported_with_code_points():
    vocabulary = Vocabulary("甲乙")
    with pytest.raises(UserError, match=r"of 2 characters lacks '丙' \(U\+4E19\), '𠀀' \(U\+20000\): use") as caught:
        vocabulary.encode("甲丙丙𠀀乙")
    assert "甲" not in str(caught.value)
    with pytest.raises(UserError, match=r"'5' \(U\+0035\) and 4 more: use"):
        vocabulary.encode("123456789")
    assert vocabulary.missing("乙丁甲丙丁") == "丁丙"
    assert vocabulary.missing("乙甲") == ""


# Valid files


def test_line_ends_become_one_space_each(tmp_path: Path):
    for name, text in {"lf": "天\n地\n\n人 和", "crlf": "天\r\n地\r\n\r\n人 和", "cr": "天\r地\r\r人 和"}.items():
        corpus = load_corpus(write(tmp_path / name, text.encode()), 0, MANY)
        assert corpus.text == "天 地  人 和", name
        assert list(corpus.first_lines) == ["天", "地", "人 和"], name
        assert corpus.vocabulary.decode(corpus.tokens) == corpus.text


def test_line_ends_are_kept_on_request(tmp_path: Path):
    for name, text in {"lf": "anna\nbo\n\n", "crlf": "anna\r\nbo\r\n\r\n", "cr": "anna\rbo\r\r"}.items():
        corpus = load_corpus(write(tmp_path / name, text.encode()), 0, MANY, keeps_newlines=True)
        assert corpus.text == "anna\nbo\n\n", name
        assert list(corpus.first_lines) == ["anna", "bo"]
        assert corpus.digest != load_corpus(tmp_path / name, 0, MANY).digest


def test_texts_are_concatenated_each_in_its_own_encoding(tmp_path: Path):
    paths = [write(tmp_path / "b", "天地\n".encode("utf-16")), write(tmp_path / "a", "人和".encode("utf-8-sig"))]
    corpus = module.load_corpus(paths, 0, MANY)
    assert corpus.text == "天地 人和"
    assert corpus.describe() == "all 5 characters of b and 1 more, 5 distinct"
    both = sum(path.stat().st_size for path in paths)
    assert module.load_corpus(paths, 0, both).text == corpus.text
    with pytest.raises(UserError, match=rf"^--corpus {tmp_path}/a and those before it: its text is larger than --max"):
        module.load_corpus(paths, 0, both - 1)


def test_text_in_a_given_encoding_is_read_from_an_archive(tmp_path: Path):
    path = write(tmp_path / "a.zip", zip_of_bytes(TEXT.encode("gb18030")))
    assert (
        load_corpus(path, 0, MANY, encoding="gbk").digest
        == load_corpus(write(tmp_path / "b", TEXT.encode()), 0, MANY).digest
    )


def test_byte_order_mark_is_skipped(tmp_path: Path):
    corpus = load_corpus(write(tmp_path / "bom.txt", "天地".encode("utf-8-sig")), 0, MANY)
    assert corpus.text == "天地"
    assert corpus.total_chars == 2


def test_text_is_cut_in_characters_and_the_cut_is_reported(tmp_path: Path):
    text = "".join(chr(0x4E00 + k % 1000) for k in range(64_925))
    path = write(tmp_path / "lyrics.txt", text.encode())
    corpus = load_corpus(path, 20_000, MANY)
    assert corpus.text == text[:20_000]
    assert corpus.describe() == "first 20,000 of 64,925 characters of lyrics.txt, 1,000 distinct"
    assert len(load_corpus(path, 300, MANY).vocabulary) == 300  # of the cut text, not of the whole file
    for keep_all in (0, 64_925, 10**30):
        whole = load_corpus(path, keep_all, MANY)
        assert whole.text == text
        assert whole.describe() == "all 64,925 characters of lyrics.txt, 1,000 distinct"


def test_first_lines_come_from_the_cut_text(tmp_path: Path):
    path = write(tmp_path / "song.txt", "\n \n天高\r\n\n地厚地厚\n人和\n四海\n".encode())
    assert list(load_corpus(path, 0, MANY).first_lines) == ["天高", "地厚地厚", "人和"]
    corpus = load_corpus(path, 8, MANY)
    assert list(corpus.first_lines) == ["天高", "地"]
    assert corpus.vocabulary.missing("".join(corpus.first_lines)) == ""


@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)
def test_zip_is_read_as_its_text_file(tmp_path: Path, method: int):
    plain = load_corpus(write(tmp_path / "song.txt", TEXT.encode()), 0, MANY)
    files = {"folder/": "", "folder/歌.txt": TEXT, "__MACOSX/folder/._歌.txt": "junk", "cover.jpg": "no text"}
    corpus = load_corpus(write(tmp_path / "song.txt.zip", zipped(files, method)), 0, MANY)
    assert corpus.text == plain.text
    assert corpus.digest == plain.digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["song.txt", "song.txt.zip"]  # nothing is unpacked


def test_gz_is_read_as_its_text(tmp_path: Path):
    data = gzip.compress(TEXT.encode()[:100]) + gzip.compress(TEXT.encode()[100:])  # two gzip members form one file
    corpus = load_corpus(write(tmp_path / "song.txt.gz", data), 0, MANY)
    assert corpus.text == TEXT.replace("\n", " ")
    assert corpus.describe() == f"all {len(TEXT)} characters of song.txt.gz, 8 distinct"


def test_digest_depends_on_the_cut_text_only(tmp_path: Path):
    path = write(tmp_path / "song.txt", TEXT.encode())
    assert load_corpus(path, 0, MANY).digest != load_corpus(path, len(TEXT) - 1, MANY).digest
    assert load_corpus(path, 30, MANY).digest == load_corpus(write(tmp_path / "b", TEXT.encode()), 30, MANY).digest


# Invalid files


def refusal(path: Path, max_bytes: int = MANY) -> str:
    """Load an invalid file, and return its error message, which must be one line."""
    with pytest.raises(UserError) as caught:
        load_corpus(path, 0, max_bytes)
    message = str(caught.value)
    assert message.startswith(f"--corpus {path}: ")
    assert "\n" not in message
    return message


def encrypted() -> bytes:
    data = bytearray(zipped({"a.txt": TEXT}))
    data[6] |= 1  # the encryption flag in the local header
    data[data.index(b"PK\1\2") + 8] |= 1  # and in the central directory
    return bytes(data)


def claims_to_be_small() -> bytes:
    data = bytearray(zipped({"a.txt": "天" * 1000}))
    directory = data.index(b"PK\1\2")
    data[directory + 24 : directory + 28] = (10).to_bytes(4, "little")
    return bytes(data)


BAD: Dict[str, "tuple[str, Callable[[], bytes], str]"] = {
    "empty": ("a.txt", lambda: b"", "contains no text"),
    "only line ends": ("a.txt", lambda: b" \r\n\n \t\n", "contains no text"),
    "only a byte order mark": ("a.txt", lambda: b"\xef\xbb\xbf", "contains no text"),
    "gb18030": (
        "a.txt",
        lambda: b"ab\n" + "分开".encode("gb18030"),
        "not UTF-8, the first bad byte is 0xb7 at offset 3",
    ),
    "half of utf-16": (
        "a.txt",
        lambda: "分开".encode("utf-16")[:-1],
        "not utf-16-le, the first bad byte is 0x00 at offset 4",
    ),
    "cut inside a character": (
        "a.txt",
        lambda: "分开".encode()[:-1],
        "not UTF-8, the first bad byte is 0xe5 at offset 3",
    ),
    "a surrogate": ("a.txt", lambda: b"abcd\xed\xa0\x80", "not UTF-8, the first bad byte is 0xed at offset 4"),
    "gb18030 in a zip": (
        "a.zip",
        lambda: zip_of_bytes("分开".encode("gb18030")),
        "first bad byte is 0xb7 at offset 0",
    ),
    "empty gz": ("a.gz", lambda: gzip.compress(b""), "contains no text"),
    "half a gz": ("a.gz", lambda: gzip.compress(TEXT.encode())[:40], "the archive is damaged or of an unknown format"),
    "half a zip": ("a.zip", lambda: zipped({"a.txt": TEXT})[:60], "the archive is damaged or of an unknown format"),
    "empty zip": ("a.zip", lambda: zipped({}), "exactly one .txt file, this one contains 0"),
    "zip without a text": (
        "a.zip",
        lambda: zipped({"a.jpg": "x", "b.jpg": "y"}),
        "exactly one .txt file, this one contains 0 ('a.jpg', 'b.jpg')",
    ),
    "zip with two": ("a.zip", lambda: zipped({"a.txt": "x", "b.txt": "y"}), "contains 2 ('a.txt', 'b.txt')"),
    "zip with ..": ("a.zip", lambda: zipped({"../a.txt": TEXT}), "unsafe name '../a.txt'"),
    "zip with .. further in": ("a.zip", lambda: zipped({"a/../../a.txt": TEXT}), "unsafe name 'a/../../a.txt'"),
    "zip with .. beside": ("a.zip", lambda: zipped({"a.txt": TEXT, "../b.jpg": ""}), "unsafe name '../b.jpg'"),
    "zip with a folder ..": ("a.zip", lambda: zipped({"a.txt": TEXT, "../": ""}), "unsafe name '../'"),
    "zip with .. in what is skipped": (
        "a.zip",
        lambda: zipped({"a.txt": TEXT, "__MACOSX/../../b": ""}),
        "unsafe name",
    ),
    "zip with many entries": (
        "a.zip",
        lambda: zipped({"a.txt": TEXT, **{f"{k}.jpg": "" for k in range(16)}}),
        "refused, it has more than 16 entries",
    ),
    "zip with a link": ("a.zip", zip_with_link, "'a.txt' is a symbolic link: give a zip of the file itself"),
    "zip that swells": ("a.zip", lambda: zipped({"a.txt": "天" * 10**5}), "claims to expand more than 200 times"),
    "zip with the text twice": ("a.zip", zipped_twice, "exactly one .txt file, this one contains 2 ('a.txt', 'a.txt')"),
    "zip with backslashes": ("a.zip", lambda: zipped({"..\\a.txt": TEXT}), r"unsafe name '..\\a.txt'"),
    "zip with an absolute name": ("a.zip", lambda: zipped({"/etc/a.txt": TEXT}), "unsafe name '/etc/a.txt'"),
    "zip with a drive": ("a.zip", lambda: zipped({"C:/a.txt": TEXT}), "unsafe name 'C:/a.txt'"),
    "zip that is encrypted": ("a.zip", encrypted, "'a.txt' is encrypted: give a zip without a password"),
    "zip that lies about its size": ("a.zip", claims_to_be_small, "damaged or of an unknown format (Bad CRC"),
    "zip with a name that is not UTF-8": (
        "a.zip",
        lambda: zipped({"歌.txt": TEXT}).replace("歌".encode(), b"\xff\xfe\xfd"),
        "the archive is damaged or of an unknown format",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_invalid_text_is_reported_in_one_line(tmp_path: Path, case: str):
    name, make, expected = BAD[case]
    assert expected in refusal(write(tmp_path / name, make()))


def test_path_that_is_not_a_file_is_reported_in_one_line(tmp_path: Path):
    assert refusal(tmp_path / "nowhere.txt").endswith("nowhere.txt: no such file")
    assert "Is a directory" in refusal(tmp_path)
    assert "Not a directory" in refusal(write(tmp_path / "a.txt", b"x") / "b.txt")
    assert "name too long" in refusal(tmp_path / ("a" * 3000))


def test_text_with_only_blanks_before_the_cut_is_refused(tmp_path: Path):
    path = write(tmp_path / "a.txt", b" " * 50 + TEXT.encode())
    assert load_corpus(path, 51, MANY).text.strip() == TEXT[0]
    with pytest.raises(UserError, match="contains no text"):
        load_corpus(path, 50, MANY)


@pytest.mark.parametrize("pack", [bytes, gzip.compress, zip_of_bytes], ids=["txt", "gz", "zip"])
def test_limit_of_bytes_is_exact(tmp_path: Path, pack: Callable[[bytes], bytes]):
    path = write(tmp_path / f"a.{({gzip.compress: 'gz', zip_of_bytes: 'zip'}).get(pack, 'txt')}", pack(TEXT.encode()))
    size = len(TEXT.encode())
    for enough in (size, size + 1, 10**30):
        assert read_bytes(path, enough) == TEXT.encode()
    message = refusal(path, size - 1)
    assert f"its text is larger than --max-corpus-bytes {size - 1}: prepare it, unpacked, with jobs/prepare" in message


@pytest.mark.parametrize("name", ["bomb.zip", "bomb.gz"])
def test_archive_bomb_is_refused_with_little_memory_and_time(tmp_path: Path, name: str):
    data = b"\0" * (64 * 2**20)
    buffer = io.BytesIO()
    if name.endswith("zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            archive.writestr("a.txt", data)
    else:
        buffer.write(gzip.compress(data, 1))
    del data
    path = write(tmp_path / name, buffer.getvalue())
    tracemalloc.start()
    started = time.process_time()
    try:
        words = "more than 200 times" if name.endswith("zip") else "--max-corpus-bytes 1,000,000"
        assert words in refusal(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20
    assert time.process_time() - started < 1


@pytest.mark.parametrize("method", [*METHODS, "gz"])
def test_damaged_archive_is_refused_or_read_correctly(tmp_path: Path, method: str):
    text = "天地 " * 30
    data = gzip.compress(text.encode()) if method == "gz" else zipped({"歌.txt": text}, METHODS[method])
    path = tmp_path / ("a.gz" if method == "gz" else "a.zip")
    damaged = [data[:length] for length in range(4, len(data))]  # by the first four bytes it is an archive
    damaged += [data[:k] + bytes([data[k] ^ 1 << k % 8]) + data[k + 1 :] for k in range(len(data))]
    refused = []
    for broken in damaged:
        path.write_bytes(broken)
        try:
            assert load_corpus(path, 0, MANY).text == text
        except UserError as error:
            refused.append(str(error))
    assert len(refused) > len(data)  # every truncation, and most of the flipped bits
    assert not any("\n" in message for message in refused)


# The packaged corpus


def test_packaged_corpus_is_large_and_has_a_free_licence():
    whole = load_corpus(None, 0, 2**28)
    first = load_corpus(None, 20_000, 2**28)
    assert whole.total_chars >= 24_000
    assert first.describe().startswith(f"first 20,000 of {whole.total_chars:,} characters of the packaged songs, ")
    assert 1_000 <= len(first.vocabulary) <= 1_800
    assert first.vocabulary.missing("分开不分开战争中部队") == ""
    odd = {c for c in PACKAGED.read_text(encoding="utf-8") if not (c in "\n " or "\u4e00" <= c <= "\u9fff")}
    assert odd == set()
    assert "\r" not in PACKAGED.read_bytes().decode()
    licences = [p for p in PACKAGED.parent.iterdir() if p != PACKAGED and "CC0" in p.read_text(encoding="utf-8")]
    assert licences
