"""Tables of the user's as text: one example a row, numbers and a label, separated by commas."""

import csv
import itertools
import math
from array import array
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_jax.data import splits
from sparse_jax.data.arrays import LARGEST, Arrays, DatasetInfo, checked, info_of
from sparse_jax.errors import UserError

_LABELS = ("label", "class", "target")  # what the column of the labels may be called
_OUTER_LABEL = "y"  # the same for the first and the last column: between others it is a coordinate
_TEST_FRACTION = 0.2


class Table(NamedTuple):
    """A file as it stands; a row's line is the first one it takes in the file, counted from 1."""

    header: list[str]  # empty without one
    label: int  # the column of the labels
    x: np.ndarray  # float32[rows, columns − 1]
    labels: list[str]
    lines: list[int]


def describe(name: str, data_dir: str) -> DatasetInfo:
    return info_of(name, load(name, data_dir))


def load(name: str, data_dir: str) -> Arrays:
    """Read a csv file of numbers and one label a row; the test part is the 20 % of `splits.hold_out`.

    The first row is a header if it has no number in it, or the name of the label. The label is the column that the
    header calls label, class or target, or the first or the last if it is called y, in any case; else the last.
    Labels, text or integers, become 0..classes−1 in the order of the numbers if all are, else of the text. Every class
    has rows in both parts: of two rows one is test, and the test part is larger than 20 % where that takes it. Blank
    lines are skipped.

    Raises:
      UserError: no such file, no text, a quote that is not closed, two columns with the name of a label, rows of
        different lengths, an empty cell, a feature that is no number in ASCII within ±1e18, a label that is a number
        and no integer, fewer than two classes, or one with fewer than two rows; the message has the path, and line and
        column.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        raise UserError(f"{path} is a folder, no csv file")
    if not path.is_file():
        raise UserError(f"no data set at {path}; a csv file has one example a row, numbers and a label")
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            table = _read(path, _rows(path, csv.reader(file, strict=True)))
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read as text separated by commas: {error}") from error
    y = _classes(path, table)
    train, test = splits.hold_out(y, max(round(_TEST_FRACTION * len(y)), int(y.max()) + 1))
    return checked(str(path), Arrays(table.x[train], y[train], table.x[test], y[test]))


def _rows(path: Path, reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """The rows that are not blank, each with the line in which it begins."""
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader, None)
        except csv.Error as error:
            raise UserError(
                f"{path} cannot be read as text separated by commas: the row that begins in line {line}, with a quote "
                f"that is not closed or not alone around its cell? ({error})"
            ) from error
        if row is None:
            return
        if len(row) > 1 or (row and row[0].strip()):
            yield line, row


def _read(path: Path, rows: Iterator[tuple[int, list[str]]]) -> Table:
    start, first = next(rows, (1, []))
    if len(first) < 2:
        raise UserError(
            f"{path} line {start}: expected numbers and a label, separated by commas; found {','.join(first)!r}"
        )
    called = _called(first)
    numbers = any(map(_is_number, first))
    has_header = not numbers or len(called) == 1
    if has_header and len(called) > 1:
        names = " and ".join(repr(first[column].strip()) for column in called)
        raise UserError(f"{path} line {start}: {names} may all be the label: leave one of these columns, or rename it")
    label = called[0] if len(called) == 1 else len(first) - 1
    table = Table(first if has_header else [], label, np.empty(0), [], [])
    _refuse_empty(path, table, first, start)
    values = array("d")
    for line, row in rows if has_header else itertools.chain([(start, first)], rows):
        if len(row) != len(first):
            raise UserError(f"{path} line {line}: {len(row)} columns, where the first row has {len(first)}")
        _append(path, table, values, row, line)
    if not table.lines:
        raise UserError(f"{path} has a header and no examples")
    if has_header and numbers and first[label].strip() in table.labels:
        raise UserError(
            f"{path} line {start} may be a header or an example, as {first[label]!r} is also a label: name the columns "
            "in it"
        )
    return table._replace(x=_finite(path, table, np.frombuffer(values).reshape(len(table.lines), -1)))


def _called(first: list[str]) -> list[int]:
    """The columns that have the name of a label, if the first row is a header."""
    names = [cell.strip().lower() for cell in first]
    outer = (0, len(names) - 1)
    return [i for i, name in enumerate(names) if name in _LABELS or (name == _OUTER_LABEL and i in outer)]


def _append(path: Path, table: Table, values: array, row: list[str], line: int) -> None:
    """Add the numbers of a row to `values`, and to the table what else it has."""
    label = row[table.label].strip()
    try:
        numbers = [_number(cell) for cell in row[: table.label] + row[table.label + 1 :]]
    except ValueError:
        _refuse_empty(path, table, row, line)
        wrong = next(i for i, cell in enumerate(row) if i != table.label and not _is_number(cell))
        raise UserError(f"{_place(path, table, line, wrong)}: {row[wrong].strip()!r} is no number") from None
    if not label or (_is_number(label) and not math.isfinite(_number(label))):
        raise UserError(f"{_place(path, table, line, table.label)}: the label is {label or 'empty'}")
    if _is_number(label) and not _number(label).is_integer():
        raise UserError(f"{_place(path, table, line, table.label)}: a label is text or an integer; found {label}")
    values.extend(numbers)
    table.labels.append(label)
    table.lines.append(line)


def _refuse_empty(path: Path, table: Table, row: list[str], line: int) -> None:
    for column, cell in enumerate(row):
        if not cell.strip():
            raise UserError(f"{_place(path, table, line, column)} is empty")


def _finite(path: Path, table: Table, x: np.ndarray) -> np.ndarray:
    """x as float32[rows, features], all within ±LARGEST."""
    with np.errstate(over="ignore"):
        single = x.astype(np.float32)
    wrong = np.argwhere(~(np.abs(single) <= LARGEST))
    if wrong.size:
        row, feature = map(int, wrong[0])
        place = _place(path, table, table.lines[row], feature + (feature >= table.label))
        limit = f"beyond ±{LARGEST:g}: scale it down" if np.isfinite(single[row, feature]) else "not finite as float32"
        raise UserError(f"{place}: {x[row, feature]} is {limit}")
    return single


def _classes(path: Path, table: Table) -> np.ndarray:
    """The labels as int32[rows], 0..classes−1."""
    keys = [_number(label) for label in table.labels] if all(map(_is_number, table.labels)) else table.labels
    known = sorted(set(keys))
    if len(known) < 2:
        raise UserError(f"{path} column {table.label + 1}: every label is {table.labels[0]}; two classes are the least")
    y = np.searchsorted(known, keys).astype(np.int32)
    alone = np.flatnonzero(np.bincount(y)[y] == 1)
    if alone.size:
        row = int(alone[0])
        raise UserError(
            f"{_place(path, table, table.lines[row], table.label)}: no other row has the label {table.labels[row]}; "
            "a class needs two, one for training and one for the test part"
        )
    return y


def _place(path: Path, table: Table, line: int, column: int) -> str:
    name = " ".join(table.header[column].split()) if table.header else ""
    return f"{path} line {line}, column {column + 1}" + (f" ({name})" if name else "")


def _number(cell: str) -> float:
    """As `float`, but for what only Python takes for a number: 1_000, and the digits of other scripts."""
    if "_" in cell or not (cell.isascii() or cell.strip().isascii()):
        raise ValueError
    return float(cell)


def _is_number(cell: str) -> bool:
    try:
        _number(cell)
    except ValueError:
        return False
    return True
