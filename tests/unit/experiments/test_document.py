"""The cells of an estimate: its value, and its interval or the two measurements."""

import pytest

from lstm_dist.experiments.report.document import estimate_cells
from lstm_dist.experiments.stats import mean


@pytest.mark.parametrize(
    ("measured", "text"),
    [
        ([20.0], "–"),
        ([20.0, 33.0], "jobs: 20.0; 33.0"),
        ([20.0, 20.0, 20.0], "–"),
        ([19.0, 20.0, 21.0], "17.6 to 22.6"),
    ],
)
def test_two_measurements_take_the_place_of_their_interval(measured: "list[float]", text: str):
    value, spread = estimate_cells("seconds", mean(measured), 1)
    assert spread.text == text
    assert value.facts["seconds"] == pytest.approx(mean(measured).value)
    assert list(spread.facts) == ["seconds_low", "seconds_high"]
