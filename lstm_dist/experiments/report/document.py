"""What a report is made of: sections of words, tables and pictures, of which page, Markdown and CSV files are made."""

from typing import Any, Dict, List, NamedTuple

from lstm_dist.experiments.report.formatters import interval, number
from lstm_dist.experiments.stats import Estimate


class Cell(NamedTuple):
    """One field of a table.

    Attributes:
        text: what is shown.
        facts: the numbers that it shows, unrounded, by the names of their CSV columns.
        span: columns that it takes.
    """

    text: str
    facts: Dict[str, Any] = {}  # noqa: RUF012 - nobody changes it
    span: int = 1

    @property
    def is_number(self) -> bool:
        """Whether it belongs to the right of its column."""
        return isinstance(next(iter(self.facts.values()), ""), (int, float))


class Row(NamedTuple):
    """Of a table; `mark` is "", "oversubscribed" or "failed", and shown."""

    cells: List[Cell]
    mark: str = ""

    @property
    def facts(self) -> Dict[str, Any]:
        """All that its cells show."""
        return {name: value for cell in self.cells for name, value in cell.facts.items()}


class Table(NamedTuple):
    """Some rows.

    Attributes:
        columns: headings.
        file: the CSV file that holds it too; "" for none.
        folded: whether the page shows it only when asked to.
    """

    caption: str
    columns: List[str]
    rows: List[Row]
    file: str = ""
    folded: bool = False

    @property
    def numbers(self) -> List[bool]:
        """Of each column, whether it holds numbers."""
        whole = next((row.cells for row in self.rows if len(row.cells) == len(self.columns)), [])
        return [cell.is_number for cell in whole] or [False] * len(self.columns)


class Picture(NamedTuple):
    """A drawing: `label` says what is in it to those who cannot see it, and in the Markdown."""

    caption: str
    label: str
    svg: str


class Section(NamedTuple):
    """A part of the report; `words` are paragraphs, shown first, and `notes` last; `pictures` are in rows."""

    anchor: str
    title: str
    words: List[str]
    tables: List[Table] = []  # noqa: RUF012 - nobody changes it
    pictures: List[List[Picture]] = []  # noqa: RUF012 - nobody changes it
    notes: List[str] = []  # noqa: RUF012 - nobody changes it


class Report(NamedTuple):
    """All of it; `facts` are name and text of what was measured."""

    title: str
    summary: str
    warnings: List[str]
    facts: List["tuple[str, str]"]
    sections: List[Section]


def estimate(name: str, value: Estimate, digits: int = 0) -> List[Cell]:
    """Two fields: the value, and its 95 % interval."""
    return [
        Cell(number(value.value, digits), {name: value.value}),
        Cell(interval(value.low, value.high, digits), {f"{name}_low": value.low, f"{name}_high": value.high}),
    ]
