"""Published accuracies, read from CSV files: what each is, and what says which runs repeat it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sparse_jax.errors import UserError, unknown
from sparse_jax.study.rows import COLUMNS
from sparse_jax.values import within

ACCURACIES = ("published", "published_low", "published_high")
WORDS = ("label", "source", "note")
PERCENT = "[0, 100]"
DECIMALS = 12  # of a share: what the file's digits say, without the rounding of a division


class Published(NamedTuple):
    """A published accuracy, in [0, 1], and the settings of the runs that it is to be set beside."""

    settings: dict[str, str]  # column of results.csv -> value or shell pattern; what is not named may be anything
    accuracy: float
    low: float | None
    high: float | None
    label: str
    source: str
    note: str


def read_published(paths: Sequence[str]) -> list[Published]:
    """The rows of all files, in order.

    Raises:
      UserError: a file is missing, is no table, or has a column that runs do not have, a value that is no accuracy in
        percent, or bounds that do not enclose it; the message names file, line and column.
    """
    return [row for path in paths for row in _file(path)]


def _file(path: str) -> list[Published]:
    lines = _lines(path)
    if len(lines) < 2:
        raise UserError(f"{path} has no row: it needs a header and a published accuracy in percent a row")
    (_, header), *body = lines
    _check_header(path, header)
    for line, row in body:
        if len(row) != len(header):
            raise UserError(f"{path}, line {line}: {len(row)} cells, and the header has {len(header)}")
    rows = [_row(f"{path}, line {line}", dict(zip(header, row, strict=True))) for line, row in body]
    if max(row.accuracy for row in rows) <= 0.01:
        raise UserError(f"{path}: no published accuracy is above 1: write them in percent, 97.03 and not 0.9703")
    return rows


def _lines(path: str) -> list[tuple[int, list[str]]]:
    """The rows with anything in them, each with the line in which it ends."""
    try:
        with Path(path).expanduser().open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file, strict=True)
            rows = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
    except FileNotFoundError:
        raise UserError(f"--published={path} does not exist") from None
    except (OSError, RuntimeError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"--published={path} cannot be read as text separated by commas: {error}") from error
    return [(line, row) for line, row in rows if any(row)]


def _check_header(path: str, header: list[str]) -> None:
    known = (*ACCURACIES, *WORDS, *COLUMNS)
    for name in header:
        if name not in known:
            raise UserError(f"{path}: {unknown('column', name, known)}")
        if header.count(name) > 1:
            raise UserError(f"{path}: two columns are called {name}")
    if "published" not in header:
        raise UserError(f"{path} has no column published, an accuracy in percent; it has {', '.join(header)}")


def _row(where: str, cells: dict[str, str]) -> Published:
    accuracy = _share(where, "published", cells["published"])
    low, high = (_share(where, name, cells[name]) if cells.get(name) else None for name in ACCURACIES[1:])
    if not (accuracy if low is None else low) <= accuracy <= (accuracy if high is None else high):
        raise UserError(f"{where}: published, {cells['published']}, is not from published_low to published_high")
    settings = {name: cell for name, cell in cells.items() if cell and name not in (*ACCURACIES, *WORDS)}
    return Published(settings, accuracy, low, high, *(cells.get(name) or "" for name in WORDS))


def _share(where: str, name: str, text: str) -> float:
    """An accuracy in percent as a share."""
    try:
        value = float(text)
    except ValueError:
        raise UserError(f"{where}, {name}: {text!r} is not a number") from None
    if not within(value, PERCENT):
        raise UserError(f"{where}, {name}: {text} is outside {PERCENT}, accuracies in percent")
    return round(value / 100, DECIMALS)
