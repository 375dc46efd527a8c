"""Write a report as an HTML page, a Markdown file, and a CSV file for each table that names one."""

import csv
import io
import re
from math import isfinite
from pathlib import Path
from typing import Any, Dict, List, Mapping

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape
from tabulate import tabulate

from lstm_dist.errors import ExitStatus, UserError, printable
from lstm_dist.experiments.report.document import Report, Table

STEM = "report"  # name of the page
# Characters special in Markdown; HTML entities for angle brackets and &, as Markdown viewers interpret HTML.
_ESCAPES = str.maketrans({**{c: f"\\{c}" for c in "\\`*_[]|#~"}, "<": "&lt;", ">": "&gt;", "&": "&amp;"})
_CODE = re.compile("`([^`]+)`")
_FLAG = re.compile(r"(?<![\w/-])--[a-z][a-z-]*")


def write(report: Report, folder: Path, stem: str = STEM, others: Mapping[str, str] = {}) -> List[Path]:
    """Write all files into `folder` and return their paths.

    Args:
        report: to write.
        folder: of all files.
        stem: name of the page.
        others: texts of further files, by their names in `folder`.

    Raises:
        UserError: if a file cannot be written; the message names it.
    """
    files = {f"{stem}.html": html(report), f"{stem}.md": markdown(report)}
    for section in report.sections:
        files.update({table.file: as_csv(table) for table in section.tables if table.file})
    files.update(others)
    for name, text in files.items():
        _write(folder / name, text)
    return [folder / name for name in files]


def _write(path: Path, text: str) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(text.encode("utf-8", errors="backslashreplace"))
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); check its permissions and the free space",
            ExitStatus.CANNOT_WRITE,
        ) from None


def html(report: Report) -> str:
    """Return a self-contained HTML page."""
    loader = FileSystemLoader(Path(__file__).parent)
    options: Dict[str, Any] = {"trim_blocks": True, "lstrip_blocks": True}
    environment = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, **options)
    environment.filters["html_text"] = _html_text
    environment.filters["html_flags"] = _html_flags
    return environment.get_template("page.html.j2").render(report=report)


def markdown(report: Report) -> str:
    """Return the report as Markdown, with a text description in place of each picture."""
    lines = [f"# {report.title}", *(f"**{_escape(text)}**" for text in report.warnings), _escape_text(report.summary)]
    lines.append("\n".join(f"- {name}: {_escape(text)}" for name, text in report.facts))
    for section in report.sections:
        lines += [f"## {section.title}", *map(_escape_text, section.paragraphs)]
        lines += [
            f"*{_escape(picture.caption)}*: {_escape(picture.label)}" for row in section.pictures for picture in row
        ]
        for table in section.tables:
            lines += [f"**{_escape(table.caption)}**", _table(table)]
        lines += map(_escape_text, section.notes)
    return "\n\n".join(lines) + "\n"


def _html_text(text: str) -> Markup:
    """Escape for HTML, mark up text between backticks as code, and keep flags from being broken at their hyphens."""
    return _html_flags(Markup(_CODE.sub(r"<code>\1</code>", str(escape(text)))))


def _html_flags(text: str) -> Markup:
    """Escape for HTML, and keep flags from being broken at their hyphens."""
    return Markup(_FLAG.sub(r'<span class="flag">\g<0></span>', str(escape(text))))


def _escape_text(text: str) -> str:
    """Escape for Markdown, except for text between backticks."""
    return "".join(part if k % 2 else _escape(part) for k, part in enumerate(re.split("(`[^`]+`)", text)))


def _escape(text: str) -> str:
    return printable(text).translate(_ESCAPES)


def _table(table: Table) -> str:
    rows = [
        [_escape(text) for cell in row.cells for text in [*[""] * (cell.span - 1), cell.text]] for row in table.rows
    ]
    align = ["right" if is_number else "left" for is_number in table.numeric]
    return tabulate(rows, table.columns, tablefmt="github", disable_numparse=True, colalign=align if rows else None)


def as_csv(table: Table) -> str:
    """Return the unrounded facts of all cells as CSV; non-finite numbers become empty fields."""
    names = list(dict.fromkeys(name for row in table.rows for name in row.facts))
    text = io.StringIO()
    writer = csv.DictWriter(text, names, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _field(value) for name, value in row.facts.items()} for row in table.rows)
    return text.getvalue()


def _field(value: Any) -> Any:
    return "" if isinstance(value, float) and not isfinite(value) else value
