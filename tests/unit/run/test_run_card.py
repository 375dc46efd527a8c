"""The run card and its list of starts, also after cards of earlier versions."""

import json
from pathlib import Path

from lstm_dist.run.run_card import CARD, read_card, with_starts, write_card
from tests.support.programs import ROOT

OLD = ROOT / "tests" / "data" / "run_of_292ec5e"


def card(number: int) -> dict:
    ranks = [{"host": "n1"}, {"host": "n1"}, {"host": "n2"}]
    return {"started": f"day {number}", "code": f"code {number}", "step": 10 * number, "ranks": ranks, "warnings": []}


def test_every_start_has_an_entry(tmp_path: Path):
    for number in range(3):
        write_card(tmp_path, with_starts(card(number), read_card(tmp_path)))
        write_card(tmp_path, {**read_card(tmp_path), "goodput": number})  # as at the end of an attempt
    found = read_card(tmp_path)
    assert found["started"] == "day 2"
    assert "warnings" in found
    assert [(s["started"], s["code"], s["step"], s["hosts"]) for s in found["starts"]] == [
        (f"day {number}", f"code {number}", 10 * number, ["n1", "n2"]) for number in range(3)
    ]
    assert all(s["slurm"] is None and "warnings" not in s and "ranks" not in s for s in found["starts"])


def test_card_of_an_earlier_version_is_the_first_start():
    first, second = with_starts(card(1), read_card(OLD))["starts"]
    assert first["started"] == "2026-11-29T05:01:00+00:00"
    assert first["git_commit"] == "292ec5e44325a3c6dfa4ca0b5b3440880d7ecccd"
    assert (first["code"], first["workers"], first["hosts"]) == (None, 1, ["vm"])
    assert second["started"] == "day 1"


def test_missing_or_damaged_card_is_empty(tmp_path: Path):
    assert read_card(tmp_path) == {}
    for text in ("{", "[]", "\udcff"):
        (tmp_path / CARD).write_text(text, errors="surrogateescape")
        assert read_card(tmp_path) == {}


def test_path_that_is_not_unicode_is_written(tmp_path: Path):
    write_card(tmp_path, {"directory": "a\udcff"})
    assert json.loads((tmp_path / CARD).read_text())["directory"] == "a\udcff"
