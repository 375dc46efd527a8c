"""Encodings of text files: told by the bytes of a file, and suggested for a file that is not in the expected one."""

import codecs
import unicodedata
from typing import List, NamedTuple, Optional, Sequence

from lstm_dist.errors import ExitStatus, UserError

# The mark of UTF-32 comes first, because that of little-endian UTF-16 is a part of it.
_MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
MARK = "\ufeff"  # the byte order mark, decoded
_WIDE = ("utf-16-le", "utf-16-be", "utf-32-le", "utf-32-be")
# Codecs of Python that no file of text is written in; some of them decode to surrogates, which are not characters.
_NOT_OF_FILES = ("idna", "punycode", "raw-unicode-escape", "undefined", "unicode-escape", "utf-7")

NO_ENCODING = "should be an encoding of text that Python knows, such as gb18030, big5, utf-16 or cp1252"

_CONTROLS = bytes(byte for byte in range(32) if byte not in b"\t\n\v\f\r\x1b")  # those that no text consists of
_MAX_CONTROLS = 0.01  # share of control characters above which a file is no text
SAMPLE = 2**16  # bytes that decide what kind of file it is


class _Languages(NamedTuple):
    """The languages that are written in some encodings.

    Attributes:
        codecs: the encodings.
        frequent: their most frequent characters beyond ASCII.
        share: roughly the share of these among the characters beyond ASCII of an ordinary text.
        is_latin: whether words mix them with ASCII letters, so that mostly an ASCII character precedes them.
    """

    codecs: Sequence[str]
    frequent: str
    share: float
    is_latin: bool = False


_SIMPLIFIED = "的一是不了人我在有他这上们来到时大地为子中你说生国年着就那和要她出也得里后自以会之而其于，。"
_TRADITIONAL = "的一是不了人我在有他這上們來到時大地為子中你說生國年著就那和要她出也得裡後自以會之而其於，。"
_HIRAGANA = "のにはをたがでてとしれさいうかなもるすりこんまくよらあそどっだきけせつめ、。"
_HANGUL = "이다는을의에가고하지를도기서로사은한나자그어리라있것수으인니아일해들게대"
_LANGUAGES = (
    _Languages(("gb18030",), _SIMPLIFIED, 0.3),
    _Languages(("big5", "cp950", "big5hkscs"), _TRADITIONAL, 0.3),
    _Languages(("cp1252",), "éèêàáâãäåæçëíîïñóôõöøúûüßœÉÀÄÖÜ’‘“”–—…«»", 0.9, True),
    _Languages(("cp1251", "koi8_r", "cp866"), "оеаинтсрвлкмдпуяыьгзбчйхжшюц", 0.8),
    _Languages(("shift_jis", "cp932", "euc_jp"), _HIRAGANA, 0.4),
    _Languages(("euc_kr", "cp949"), _HANGUL, 0.35),
    _Languages(("cp1250", "iso8859_2"), "áéíóúýěščřžůďťňąćęłńśźżőűăâîșțöüä’‘“”„–—…", 0.9, True),
    _Languages(("cp1254",), "ışğüöçâîİŞĞÜÖÇ’‘“”–—…", 0.9, True),
    _Languages(("cp1253",), "αοιετσνηυρπκμλςωάέόίήύώγδθ", 0.8),
    _Languages(("cp1255",), "יוהלאמרתשבנדםפקעטכסןחגצז", 0.8),
    _Languages(("cp1256",), "اليمونرتبدهعفسكأقحةجشخص،", 0.8),
    _Languages(("cp874",), "านรอกเงมยลวดทสตะคปบแห่้ีัิุ์", 0.7),
)
_FAMILIAR = frozenset("".join(map(chr, range(32, 127))) + "\t\n\r").union(*(each.frequent for each in _LANGUAGES))
_MIN_FIT, _NEAR, _MOST = 0.3, 0.7, 3  # a suggestion fits this well, and this well relative to the best; at most three


def is_encoding(name: str) -> bool:
    """Return whether Python has an encoding of this name in which files of text are written."""
    try:
        b"a".decode(name)  # refuses codecs that are no encodings of text
        return codecs.lookup(name).name not in _NOT_OF_FILES
    except (LookupError, ValueError):  # ValueError: undecodable, as in UTF-16, or a null byte in the name
        return is_wide(name)


def is_wide(name: str) -> bool:
    """Return whether an encoding is UTF-16 or UTF-32, in which the bytes of a text include zeros."""
    try:
        return codecs.lookup(name).name.startswith(("utf-16", "utf-32"))
    except (LookupError, ValueError):
        return False


def detect(head: bytes) -> str:
    """Return UTF-8, UTF-16 or UTF-32, by the byte order mark of a file or, without one, by its zero bytes.

    Args:
        head: the beginning of the file, SAMPLE bytes if it has as many.
    """
    for mark, codec in _MARKS:
        if head.startswith(mark):
            return codec
    if has_controls(head):  # UTF-16 and UTF-32 are full of zero bytes and of what looks like control characters
        shares = {codec: _familiar_share(head[:SAMPLE], codec) for codec in _WIDE}
        best = max(_WIDE, key=lambda codec: shares[codec])
        if shares[best] > 0.1:
            return best
    return "utf-8"


def codec_of(head: bytes, encoding: Optional[str]) -> str:
    """Return the name of Python's codec of a file.

    UTF-16 and UTF-32 leave the order of the bytes to a byte order mark. Without one, it is detected, or else
    little-endian, as Python's codecs differ in what they do then.

    Args:
        head: the beginning of the file, SAMPLE bytes if it has as many.
        encoding: of the file; None detects UTF-8, UTF-16 and UTF-32.
    """
    if encoding is None:
        return detect(head)
    codec = codecs.lookup(encoding).name
    if codec not in ("utf-16", "utf-32"):
        return codec
    detected = detect(head)
    return detected if detected.startswith(codec) else f"{codec}-le"


def has_controls(head: bytes) -> bool:
    """Return whether the beginning of a file has more control characters than a text, as programs and images have."""
    sample = head[:SAMPLE]
    return len(sample) - len(sample.translate(None, _CONTROLS)) > _MAX_CONTROLS * len(sample)


def _familiar_share(sample: bytes, codec: str) -> float:
    """Return the share of ASCII and frequent characters; 0 if the sample is not a text in this encoding."""
    text = _decode_part(sample, codec)
    odd = sum(unicodedata.category(c) in ("Cc", "Cn", "Co") and c not in "\t\n\v\f\r\x1b" for c in text)
    if not text or odd > _MAX_CONTROLS * len(text):
        return 0.0
    return sum(c in _FAMILIAR for c in text) / len(text)


def _decode_part(sample: bytes, codec: str) -> str:
    """Return the characters of a part of a file, whose last one may be cut; empty if it is not in this encoding."""
    try:
        return codecs.getincrementaldecoder(codec)().decode(sample)
    except UnicodeError:
        return ""


def decode_unicode(raw: bytes) -> str:
    """Return the text of a file in UTF-8, UTF-16 or UTF-32, without its byte order mark.

    Raises:
        UnicodeDecodeError: if it is in none of them.
    """
    return without_mark(raw.decode(detect(raw)))


def without_mark(text: str) -> str:
    """Return the text without the byte order mark at its beginning, if it has one."""
    return text[1:] if text.startswith(MARK) else text


def decode_text(raw: bytes, name: str, encoding: Optional[str]) -> str:
    """Return the text of a file, without its byte order mark.

    Args:
        raw: the whole file.
        name: of the file, for messages.
        encoding: of the file; None detects UTF-8, UTF-16 and UTF-32, and refuses what looks like no text.

    Raises:
        UserError: if it is no text, or in another encoding; the message names encodings that fit.
    """
    codec = codec_of(raw, encoding)
    if encoding is None and not is_wide(codec) and has_controls(raw):
        raise not_a_text(name)
    try:
        return without_mark(raw.decode(codec))
    except UnicodeDecodeError as error:
        raise undecodable(name, codec, error.start, raw, error.start) from None
    except UnicodeError as error:  # a stateful encoding
        raise UserError(f"{name}: not {codec} ({error}): give another --encoding", ExitStatus.BAD_DATA) from None


def not_a_text(name: str, kind: str = "") -> UserError:
    """Return the error for a file of another kind; without its name, for one that has too many control characters."""
    reason, advice = f"but a {kind} file", "give a file of plain text"
    if not kind:
        reason, advice = "as more than 1 % of it are control characters", f"{advice}, or its --encoding if it is one"
    return UserError(f"{name}: is no text, {reason}: {advice}", ExitStatus.BAD_DATA)


def undecodable(name: str, codec: str, offset: int, part: bytes, start: int) -> UserError:
    """Return the error for a file that is not in the given or detected encoding.

    Args:
        name: of the file.
        codec: the encoding.
        offset: of the first bad byte in the file.
        part: the file, or the part of it that is examined for its encoding.
        start: offset of the first bad byte in `part`.
    """
    if codec == "utf-8" and _is_mostly_utf_8(part[max(0, start - SAMPLE) : start + SAMPLE]):
        advice = "what is around it is UTF-8: repair it, for example with `iconv -c -f utf-8 -t utf-8`"
    else:
        advice = _advise(fitting_encodings(part, start))
    label = "UTF-8" if codec == "utf-8" else codec
    return UserError(
        f"{name}: not {label}, the first bad byte is 0x{part[start]:02x} at offset {offset}: {advice}",
        ExitStatus.BAD_DATA,
    )


def _advise(fitting: Sequence[str]) -> str:
    """Return what to do about a file that these encodings fit, best first."""
    if not fitting:
        return "no common encoding fits either: repair it, or give --encoding"
    best, *others = fitting
    so = f" (so {'do' if others[1:] else 'does'} {', '.join(others)})" if others else ""
    return f"give --encoding {best}, which decodes it without error{so}"


def _is_mostly_utf_8(sample: bytes) -> bool:
    """Return whether more characters beyond ASCII are UTF-8 than bytes are not, which chance does not bring about."""
    text = sample.decode("utf-8", "replace")
    bad = text.count("\ufffd")
    return sum(c > "\x7f" for c in text) - bad > bad


def fitting_encodings(raw: bytes, offset: int) -> List[str]:
    """Return the encodings that decode `raw` without error and make a text of it, best first.

    Almost any bytes can be decoded in several encodings, so each is judged by the share that the most frequent
    characters of its languages have among the characters beyond ASCII, relative to their share in an ordinary text.

    Args:
        raw: a file or a part of one.
        offset: of the first byte that is not UTF-8; what surrounds it is examined.
    """
    sample = raw[_start_of_sample(raw, offset) : offset + SAMPLE]
    fits, texts = {}, set()
    for languages in _LANGUAGES:
        for codec in languages.codecs:
            text = _decode_part(sample, codec)
            if text not in texts:
                fits[codec] = _fit(text, languages)
                texts.add(text)
    least = max(_MIN_FIT, _NEAR * max(fits.values(), default=0.0))
    ranked = sorted((codec for codec in fits if fits[codec] >= least), key=lambda codec: -fits[codec])
    return [codec for codec in ranked[:_MOST] if _decodes(raw, codec)]


def _start_of_sample(raw: bytes, offset: int) -> int:
    """Return the start of the line of a byte; in a long line, that of a word at most SAMPLE bytes before the byte.

    A line end or a space is never a part of another character in the encodings that are tried, so a character begins
    after it.
    """
    first = max(0, offset - SAMPLE)
    line = raw.rfind(b"\n", first, offset) + 1
    if line or not first:
        return line
    return raw.find(b" ", first, offset) + 1 or offset


def _decodes(raw: bytes, codec: str) -> bool:
    """Return whether a codec decodes a file, whose last character may be cut, without keeping the decoded text."""
    decoder = codecs.getincrementaldecoder(codec)()
    try:
        for start in range(0, len(raw), SAMPLE):
            decoder.decode(raw[start : start + SAMPLE])
    except UnicodeError:
        return False
    return True


def _fit(text: str, languages: _Languages) -> float:
    """Return how well a text fits the languages: about 1 if it is written in one of them, near 0 if not at all."""
    beyond = [(before, c) for before, c in zip(" " + text, text) if c > "\x7f"]
    count = sum(
        c in languages.frequent and (before < "\x80" if languages.is_latin else not _is_ascii_letter(before))
        for before, c in beyond
    )
    return count / max(1, len(beyond)) / languages.share


def _is_ascii_letter(character: str) -> bool:
    return character < "\x80" and character.isalpha()
