"""Tables of predicted steps: beside the measured ones, and for more workers than were measured."""

from typing import Sequence

from lstm_dist.experiments.report.document import Cell, Row, Table
from lstm_dist.experiments.report.formatters import interval, milliseconds, number, signed, size
from lstm_dist.scaling.analysis import ModeFindings
from lstm_dist.scaling.forecast import Forecast, ForecastPoint, StepComparison
from lstm_dist.scaling.tables.cells import count_cell, group_cells, mark, mode_cell


def comparison_table(modes: Sequence[ModeFindings]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", "sent", "own part, ms", "communication, ms", "predicted, ms", "measured, ms"]
    columns += ["error, %", ""]
    rows = [_comparison_row(step) for mode in modes for step in mode.steps]
    return Table("Steps predicted from compute and link, and measured steps", columns, rows)


def _comparison_row(step: StepComparison) -> Row:
    group, predicted, text = step.group, step.predicted, mark(step.group.oversubscribed)
    figures = {
        "own_ms": predicted.compute,
        "link_ms": predicted.communication,
        "predicted_ms": predicted.step,
        "step_ms": step.measured,
    }
    return Row(
        [
            *group_cells(group),
            Cell(size(group.bytes), {"bytes": group.bytes}),
            *(Cell(milliseconds(value, 1), {name: 1000 * value}) for name, value in figures.items()),
            Cell(signed(100 * step.error), {"error_percent": 100 * step.error}),
            Cell(text),
        ],
        text,
    )


def forecast_table(forecasts: Sequence[Forecast]) -> Table:
    """Return one row per mode and number of workers."""
    columns = ["mode", "workers", "sent", "ms per step", "band, ms", "efficiency, %", "band, %"]
    rows = [
        _forecast_row(forecast, point)
        for forecast in forecasts
        for point in forecast.points
        if point.workers > forecast.max_measured
    ]
    return Table("Predicted, not measured", columns, rows)


def _forecast_row(forecast: Forecast, point: ForecastPoint) -> Row:
    low_ms, high_ms = 1000 * point.low, 1000 * point.high
    low, middle, high = (
        100 * forecast.efficiency(point.workers, step) for step in (point.high, point.middle, point.low)
    )
    return Row(
        [
            mode_cell(forecast.mode, forecast.series),
            count_cell("workers", point.workers),
            Cell(size(point.bytes), {"bytes": point.bytes}),
            Cell(milliseconds(point.middle, 1), {"step_ms": 1000 * point.middle}),
            Cell(interval(low_ms, high_ms, 1), {"low_ms": low_ms, "high_ms": high_ms}),
            Cell(number(middle, 1), {"efficiency_percent": middle}),
            Cell(interval(low, high, 1), {"low_percent": low, "high_percent": high}),
        ]
    )
