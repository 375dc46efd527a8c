"""A text in another encoding is copied in UTF-8, wherever its blocks end; errors name the byte in the text."""

import re
from pathlib import Path

import pytest

from lstm_dist.data import transcode as module
from lstm_dist.data.text_chunks import TextFile, find_text_files
from lstm_dist.data.transcode import transcode
from lstm_dist.errors import UserError

TEXT = "明月几时有？\r\n把酒问青天。\n" * 9


@pytest.mark.parametrize("codec", ["gb18030", "big5", "utf-16", "utf-16-be", "utf-32", "iso2022_jp", "utf-8-sig"])
@pytest.mark.parametrize("block", [1, 7, 2**22])
def test_copy_has_the_same_characters(tmp_path: Path, codec: str, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    text = TEXT.encode(codec, "ignore").decode(codec)
    (tmp_path / "moon.txt").write_bytes(text.encode(codec))
    copy = transcode(TextFile.stat(tmp_path / "moon.txt", codec), tmp_path / "copies" / "0")
    assert copy == TextFile.stat(tmp_path / "copies" / "0" / "moon.txt")
    assert copy.path.read_bytes() == text.encode()


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be"])
def test_wide_text_without_byte_order_mark_is_copied(tmp_path: Path, codec: str):
    (tmp_path / "a").write_bytes(TEXT.encode(codec))
    (file,) = find_text_files([tmp_path / "a"], codec[:6])
    assert transcode(file, tmp_path / "copies").path.read_bytes() == TEXT.encode()


def test_byte_order_mark_is_not_copied(tmp_path: Path):
    (tmp_path / "a").write_bytes(b"\xff\xfe" + TEXT.encode("utf-16-le"))
    copy = transcode(TextFile.stat(tmp_path / "a", "utf-16-le"), tmp_path / "copies")
    assert copy.path.read_bytes() == TEXT.encode()


@pytest.mark.parametrize("block", [1, 7, 2**22])
def test_bad_byte_is_reported_with_its_offset(tmp_path: Path, block: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_BLOCK", block)
    (tmp_path / "a").write_bytes("明月".encode("gb18030") * 20 + b"\xff" + b"abc")
    words = f"TEXT {tmp_path}/a: not gb18030, the first bad byte is 0xff at offset 80: "
    with pytest.raises(UserError, match=f"^{re.escape(words)}"):
        transcode(TextFile.stat(tmp_path / "a", "gb18030"), tmp_path / "copies")


def test_text_that_changes_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(TEXT.encode("gb18030"))
    before = TextFile.stat(tmp_path / "a", "gb18030")
    (tmp_path / "a").write_bytes(b"another")
    with pytest.raises(UserError, match="was changed while it was read"):
        transcode(before, tmp_path / "copies")
