"""Encodings are told by marks and zero bytes, and the suggested ones decode the file into a text that reads well."""

import codecs
import hashlib
import tracemalloc
from typing import Sequence

import pytest

from lstm_dist import encoding
from lstm_dist.data.corpus import PACKAGED
from lstm_dist.encoding import decode_text, decode_unicode, detect, fitting_encodings, has_controls, is_encoding
from lstm_dist.errors import UserError

SONGS = PACKAGED.read_text(encoding="utf-8")
ENGLISH = "She said: no.\nHe didn't.\n" * 40
RUSSIAN = "Все счастливые семьи похожи друг на друга, каждая несчастливая семья несчастлива по-своему.\n"
WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
MARKS = {
    "utf-8": codecs.BOM_UTF8, "utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE,
    "utf-32-le": codecs.BOM_UTF32_LE, "utf-32-be": codecs.BOM_UTF32_BE,
}  # fmt: skip


@pytest.mark.parametrize("codec", MARKS)
def test_byte_order_mark_tells_the_encoding_and_is_skipped(codec: str):
    for text in ("分开\n", "no\r\n", ""):
        assert decode_unicode(MARKS[codec] + text.encode(codec)) == text
        assert decode_text(MARKS[codec] + text.encode(codec), "a", None) == text


@pytest.mark.parametrize("codec", WIDE)
@pytest.mark.parametrize("text", [ENGLISH, SONGS, SONGS.replace("\n", ""), RUSSIAN, "hi"])
def test_encodings_with_zero_bytes_are_detected_without_a_mark(codec: str, text: str):
    assert decode_text(text.encode(codec), "a", None) == text


def test_utf_8_is_not_taken_for_another_encoding():
    for text in (ENGLISH, SONGS, RUSSIAN, "\x1b[1mbold\x1b[0m\f\v", "one zero byte \0 in a long line " + "a" * 999):
        assert detect(text.encode()) == "utf-8"
        assert decode_text(text.encode(), "a", None) == text


def test_bytes_of_a_program_or_an_image_are_no_text():
    for data in (hashlib.shake_128(b"any bytes").digest(5000), bytes(9)):
        assert has_controls(data)
        with pytest.raises(
            UserError, match="^a: is no text, as more than 1 % of it are control characters: give a fil"
        ):
            decode_text(data, "a", None)
    with pytest.raises(UserError, match="^a: is no text, .*, or its --encoding if it is one$"):
        decode_text(b"N\bNA\bAM\bME\bE\n", "a", None)


def test_given_encoding_is_used():
    assert decode_text(SONGS.encode("big5", "replace"), "a", "big5").startswith(SONGS[:2])
    assert decode_text(ENGLISH.encode("utf-16"), "a", "utf-16") == ENGLISH
    assert decode_text(b"\xef\xbb\xbfabc", "a", "utf-8") == "abc"
    with pytest.raises(
        UserError, match=r"^a: not big5, the first bad byte is 0x\w\w at offset \d+: give --encoding gb"
    ):
        decode_text(SONGS.encode("gb18030"), "a", "big5")


@pytest.mark.parametrize(
    ("codec", "text"),
    [
        ("iso2022_kr", "가나다 라마바\n" * 9),  # changes its character set by control characters
        ("cp037", "so it goes\x85" * 9),  # EBCDIC, whose line end is the control character NEL
        ("utf-8", "N\bNA\bAM\bME\bE\n" * 9),  # overstruck by backspaces, as in a printed manual
    ],
    ids=lambda value: value[:9],
)
def test_text_with_control_characters_is_read_in_the_given_encoding(codec: str, text: str):
    assert decode_text(text.encode(codec), "a", codec) == text


@pytest.mark.parametrize("codec", WIDE)
def test_wide_encoding_given_without_its_byte_order_is_detected(codec: str):
    assert decode_text(ENGLISH.encode(codec), "a", codec[:6]) == ENGLISH
    assert decode_text("明月几时有".encode(f"{codec[:6]}-le"), "a", codec[:6]) == "明月几时有"  # nothing tells it


@pytest.mark.parametrize("name", ["gb18030", "GBK", "big5", "utf-16", "UTF-32", "utf_8", "latin-1", "cp1252", "euc-kr"])
def test_encodings_of_python_are_accepted(name: str):
    assert is_encoding(name)


@pytest.mark.parametrize("name", ["", "utf-9", "hex", "rot13", "zlib", "a\0b", "utf-7", "unicode_escape", "idna", "分"])
def test_other_names_are_refused(name: str):
    assert not is_encoding(name)


POEMS = {
    ("gb18030", "gbk"): "昔我往矣，杨柳依依。今我来思，雨雪霏霏。行道迟迟，载渴载饥。我心伤悲，莫知我哀。",
    ("big5",): "臣亮言：先帝創業未半，而中道崩殂。今天下三分，益州疲弊，此誠危急存亡之秋也。然侍衛之臣，不懈於內",
    (
        "shift_jis",
        "euc_jp",
    ): "吾輩は猫である。名前はまだ無い。どこで生れたかとんと見当がつかぬ。何でも薄暗いじめじめした",
    ("euc_kr",): "모든 국민은 인간으로서의 존엄과 가치를 가지며, 행복을 추구할 권리를 가진다. 국가는 개인이 가지는",
    ("cp1251", "koi8_r", "cp866"): RUSSIAN,
    ("cp1252",): "Zwölf Boxkämpfer jagen Viktor quer über den großen Deich – he said it’s “fine”, déjà vu à Besançon",
    (
        "cp1250",
        "iso8859_2",
    ): "Litwo, Ojczyzno moja! ty jesteś jak zdrowie; Kto cię stracił. Dziś piękność twą w całej ozdobie",
    ("cp1254",): "Korkma, sönmez bu şafaklarda yüzen al sancak; Sönmeden yurdumun üstünde tüten en son ocak yıldızıdır",
    ("cp1253",): "Σα βγεις στον πηγαιμό για την Ιθάκη, να εύχεσαι νάναι μακρύς ο δρόμος, γεμάτος περιπέτειες",
    ("cp1255",): "בראשית ברא אלהים את השמים ואת הארץ והארץ היתה תהו ובהו וחשך על פני תהום ורוח אלהים מרחפת",
    ("cp1256",): "يولد جميع الناس أحرارا متساوين في الكرامة والحقوق وقد وهبوا عقلا وضميرا وعليهم أن يعامل بعضهم",
    ("cp874",): "มนุษย์ทั้งหลายเกิดมามีอิสระและเสมอภาคกันในเกียรติศักดิ์และสิทธิ ต่างมีเหตุผลและมโนธรรม",
}


@pytest.mark.parametrize(("codecs_", "text"), POEMS.items(), ids=[names[0] for names in POEMS])
def test_best_suggestion_is_the_encoding_of_the_file(codecs_: Sequence[str], text: str):
    for codec in codecs_:
        raw = b"plain\n" * 9 + f"{text}\n".encode(codec) * 3
        with pytest.raises(UserError, match="^a: not UTF-8, the first bad byte is 0x") as caught:
            decode_text(raw, "a", None)
        best = str(caught.value).partition("give --encoding ")[2].partition(",")[0]
        assert raw.decode(best) == raw.decode(codec), caught.value


def test_no_encoding_is_suggested_that_fails_later_in_the_file():
    raw = SONGS.encode("gb18030")
    assert fitting_encodings(raw, 0) == ["gb18030"]
    assert "gb18030" not in fitting_encodings(raw + b"\xff\xff" + raw, 0)


def test_damaged_utf_8_gets_no_wrong_suggestion():
    french = "C’est l’été – déjà\n".encode() * 20
    for raw, bad in ((SONGS.encode(), b"\xff"), (french, "’été".encode("cp1252"))):
        offset = raw.rindex(b"\n", 0, 3000)
        words = f"^a: not UTF-8, the first bad byte is 0x.. at offset {offset}: what is around it is UTF-8: repair it, "
        with pytest.raises(UserError, match=words):
            decode_text(raw[:offset] + bad + raw[offset:], "a", None)


def test_bytes_that_fit_nothing_get_no_suggestion():
    with pytest.raises(UserError, match=r"at offset 6: no common encoding fits either: repair it, or give --encoding$"):
        decode_text(b"plain \x81\x8d\x8f text\n" * 9, "a", None)


@pytest.mark.parametrize("before", [b"one two ", b"one-two-"])
def test_encoding_of_a_text_without_line_ends_is_found_in_the_memory_of_a_sample(before: bytes):
    size = 2**22
    raw = before * (size // len(before)) + SONGS[:2000].replace("\n", "").encode("gb18030")
    tracemalloc.start()
    assert fitting_encodings(raw, size) == ["gb18030"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < size, "the decoded text alone would take more"


def test_damaged_utf_8_is_not_tried_in_other_encodings(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(encoding, "fitting_encodings", lambda *_: pytest.fail("which takes time"))
    with pytest.raises(UserError, match="what is around it is UTF-8"):
        decode_text(SONGS.encode() + b"\xff", "a", None)
