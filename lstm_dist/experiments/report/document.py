"""Data model of a report: sections of paragraphs, tables and pictures, rendered as HTML, Markdown and CSV."""

from typing import Any, Dict, List, NamedTuple

from lstm_dist.experiments.report.formatters import interval, number
from lstm_dist.experiments.stats import Estimate


class Cell(NamedTuple):
    """One cell of a table.

    Attributes:
        text: displayed text.
        facts: the displayed numbers, unrounded, by CSV column.
        span: number of columns that the cell spans.
        shade: "good", "fair" or "poor", the background of the cell on the page; "" for none.
    """

    text: str
    facts: Dict[str, Any] = {}  # noqa: RUF012 - never mutated
    span: int = 1
    shade: str = ""

    @property
    def is_number(self) -> bool:
        """Return whether the cell is right-aligned, as numbers are."""
        return isinstance(next(iter(self.facts.values()), ""), (int, float))


class Row(NamedTuple):
    """A table row; `mark` is "", "oversubscribed" or "failed", and is displayed."""

    cells: List[Cell]
    mark: str = ""

    @property
    def facts(self) -> Dict[str, Any]:
        """Return the facts of all cells."""
        return {name: value for cell in self.cells for name, value in cell.facts.items()}


class Table(NamedTuple):
    """A table.

    Attributes:
        columns: column headings.
        file: name of the CSV file with the same data; "" for none.
        collapsed: whether the page shows only its caption until it is opened.
        wraps: whether the cells hold sentences, whose lines are broken to fit the page.
    """

    caption: str
    columns: List[str]
    rows: List[Row]
    file: str = ""
    collapsed: bool = False
    wraps: bool = False

    @property
    def numeric(self) -> List[bool]:
        """Return whether each column holds numbers."""
        whole = next((row.cells for row in self.rows if len(row.cells) == len(self.columns)), [])
        return [cell.is_number for cell in whole] or [False] * len(self.columns)


class Picture(NamedTuple):
    """A picture; `label` is its text description, for screen readers and the Markdown report."""

    caption: str
    label: str
    svg: str


class Section(NamedTuple):
    """A section of the report: `paragraphs` come first, `notes` last, `pictures` are rows of pictures."""

    anchor: str
    title: str
    paragraphs: List[str]
    tables: List[Table] = []  # noqa: RUF012 - never mutated
    pictures: List[List[Picture]] = []  # noqa: RUF012 - never mutated
    notes: List[str] = []  # noqa: RUF012 - never mutated


class Report(NamedTuple):
    """A complete report; `facts` are (name, text) pairs that describe the measurement."""

    title: str
    summary: str
    warnings: List[str]
    facts: List["tuple[str, str]"]
    sections: List[Section]


def estimate_cells(name: str, value: Estimate, digits: int = 0) -> List[Cell]:
    """Return two cells: the value, and its 95 % confidence interval.

    The interval of two measurements is mostly wider than a factor of ten. The cell shows them in its place, and the CSV
    file has the interval.
    """
    text = interval(value.low, value.high, digits)
    if len(value.repeats) == 2:
        text = f"jobs: {'; '.join(number(repeat, digits) for repeat in value.repeats)}"
    return [
        Cell(number(value.value, digits), {name: value.value}),
        Cell(text, {f"{name}_low": value.low, f"{name}_high": value.high}),
    ]
