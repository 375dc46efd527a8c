"""The length of an epoch is forecast once, and only if it is long."""

from typing import List, Optional

import pytest

from lstm_dist.train.epoch_forecast import EpochForecast


def forecasts(seconds_per_step: float, steps_per_epoch: int, monkeypatch: pytest.MonkeyPatch) -> List[Optional[float]]:
    """Return what is forecast after each of 20 steps of a run that is resumed after step 100."""
    now = [5.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    forecast, found = EpochForecast(), []
    for step in range(101, 121):
        now[0] += seconds_per_step
        found.append(forecast.seconds(step, steps_per_epoch))
    return found


def test_long_epoch_is_forecast_once(monkeypatch: pytest.MonkeyPatch):
    found = forecasts(2.5, 400, monkeypatch)
    assert found == [None] * 4 + [1000.0] + [None] * 15


def test_short_epoch_is_not_forecast(monkeypatch: pytest.MonkeyPatch):
    assert set(forecasts(2.5, 20, monkeypatch)) == {None}
    assert set(forecasts(0.1, 4000, monkeypatch)) == {None}, "it is not measured long enough"
