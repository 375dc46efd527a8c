"""Text of every script is printed as it is; only what controls a terminal or moves other text is escaped."""

import pytest

from lstm_dist.errors import printable


@pytest.mark.parametrize(
    "text",
    [
        "می\u200cخواهم کتاب\u200cها را",  # Persian, with non-joiners
        "בְּרֵאשִׁית \u200fבָּרָא\u200e",  # Hebrew, with vowel points and direction marks
        "क्\u200dष श्री",  # Hindi, with a joiner
        "👩\u200d👩\u200d👧 ❤\ufe0f 👍🏽 🏴\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f",  # emoji
        "e\u0301 a\u034fb co\u00adop \u3000分开\u00a0\ufeff",  # combining marks, a soft hyphen, wide and fixed spaces
        "\ue000\u0378\U0001fae8",  # private, unassigned, and newer than this Python
    ],
)
def test_joiners_and_marks_are_printed_as_they_are(text: str):
    assert printable(text) == text


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("a\x1b[2J\r\n\t\0\x7f\x85", r"a\x1b[2J\r\n\t\x00\x7f\x85"),
        ("a\u2028b\u2029", r"a\u2028b\u2029"),
        ("a\udcff", r"a\udcff"),
        ("\u202aa\u202bb\u202cc\u202dd\u202e", r"\u202aa\u202bb\u202cc\u202dd\u202e"),
        ("\u2066a\u2067b\u2068c\u2069", r"\u2066a\u2067b\u2068c\u2069"),
    ],
)
def test_controls_and_what_reorders_a_line_are_escaped(text: str, escaped: str):
    assert printable(text) == escaped
