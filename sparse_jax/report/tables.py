"""Tables: the same frame as HTML with its exact values, as CSV, and as LaTeX with booktabs."""

import math
import re
from typing import Any, NamedTuple

import pandas as pd

from sparse_jax.report.records import NONE

_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "{": r"\{", "}": r"\}",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "²": "$^2$", "≥": r"$\geq$", "−": "$-$", "†": r"$\dagger$",
    "–": "--", "…": r"\ldots{}", "δ": r"$\delta$", "α": r"$\alpha$", "β": r"$\beta$", "η": r"$\eta$",
    "ω": r"$\omega$", "·": r"$\cdot$", "×": r"$\times$",
}  # fmt: skip


class Table(NamedTuple):
    """A table of the report; `formats` says how the numbers of a column are shown, by a format specification.

    `whole` is what its CSV holds, where that is more than is shown.
    """

    id: str
    title: str
    caption: str
    frame: pd.DataFrame
    formats: dict[str, str]
    whole: pd.DataFrame | None = None


class Cell(NamedTuple):
    """A cell: the text, and the exact value where that is a number."""

    text: str
    value: str | None


def cell(value: Any, specification: str) -> Cell:
    """What a table shows of a value; the number behind it is the shortest text that reads back equal."""
    if value is None or value is pd.NA or (isinstance(value, float) and math.isnan(value)):
        return Cell(NONE, None)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return Cell(str(value), None)
    return Cell(signed(format(value, specification)), repr(value))


def signed(text: str) -> str:
    """A number with a real minus sign."""
    return text.replace("-", "−") if text.startswith("-") else text


def cells(table: Table) -> list[list[Cell]]:
    """All rows of a table."""
    formats = [table.formats.get(name, "") for name in table.frame]
    columns = [table.frame[name].astype(object) for name in table.frame]
    rows = zip(*columns, strict=True)
    return [[cell(_plain(value), spec) for value, spec in zip(row, formats, strict=True)] for row in rows]


def is_numeric(table: Table, name: str) -> bool:
    """Whether a column is set flush right."""
    return name in table.formats


def latex(table: Table) -> str:
    """The table for a paper that loads booktabs."""
    align = "".join("r" if is_numeric(table, name) else "l" for name in table.frame)
    lines = [" & ".join(escape_latex(one.text) for one in row) + r" \\" for row in cells(table)]
    head = " & ".join(escape_latex(str(name)) for name in table.frame) + r" \\"
    body = ["% needs \\usepackage{booktabs}", f"\\begin{{tabular}}{{{align}}}", "\\toprule", head, "\\midrule"]
    return "\n".join([*body, *lines, "\\bottomrule", "\\end{tabular}", ""])


def escape_latex(text: str) -> str:
    """The text as LaTeX sets it, on one line."""
    pattern = "|".join(re.escape(character) for character in _LATEX)
    return re.sub(pattern, lambda match: _LATEX[match[0]], " ".join(text.split()))


def to_csv(frame: pd.DataFrame) -> str:
    """The frame with its exact values."""
    return frame.to_csv(index=False, lineterminator="\n")


def _plain(value: Any) -> Any:
    """A NumPy scalar as Python's own."""
    return value.item() if hasattr(value, "item") else value
