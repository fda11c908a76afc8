"""The values of settings and their text: what a flag may say, and how a value is shown."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from sparse_jax.config import ALONE, AUTO, RunConfig
from sparse_jax.errors import UserError, unknown
from sparse_jax.topology.patterns import parse_pattern
from sparse_jax.topology.radix import parse_radix

BRACES = re.compile(r"\{(\w*)\}")  # around the name of a setting in a path


def within(value: float, bounds: str) -> bool:
    """Whether `value` lies in an interval such as "[0, 1)"; NaN never does, infinity only in a closed one."""
    low, high = (float(end) for end in bounds[1:-1].split(","))
    above = value >= low if bounds[0] == "[" else value > low
    below = value <= high if bounds[-1] == "]" else value < high
    return above and below


def _number(text: str, read: Callable[[str], float], what: str, bounds: str) -> float:
    try:
        value = read(text.strip())
    except ValueError:
        raise ValueError(f"{text.strip()!r} is not {what}") from None
    if not within(value, bounds):
        raise ValueError(f"{text.strip()} is outside {bounds.replace('inf', '∞')}")
    return value


def _path(text: str, field: dataclasses.Field) -> str:
    """The text itself, if it can be a path at all."""
    if not text.strip():
        raise ValueError("'' names neither a file nor a folder")
    try:
        text.encode()
        Path(text).expanduser().exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise ValueError(f"{text} cannot be a path: {error}") from None
    return text


def _name(text: str, field: dataclasses.Field) -> str:
    name, known, endings = text.strip(), field.metadata["choices"], field.metadata.get("paths") or ()
    if name.endswith(endings):
        return _path(name, field)
    if name in known:
        return name
    paths = f" (or the path of an {' or '.join(endings)} file)" if endings else ""
    also = (AUTO,) if field.metadata.get("auto") else ()
    raise ValueError(str(unknown(field.name, name, (*known, *also))) + paths)


def _names(text: str, field: dataclasses.Field) -> tuple[str, ...]:
    if not text.strip():
        raise ValueError(f"{text.strip()!r} names none. Known: {', '.join(field.metadata['choices'])}")
    return tuple(_name(part, field) for part in text.split(":"))


def _interval(text: str, field: dataclasses.Field) -> str:
    """The text itself: how many steps an epoch has depends on the data."""
    match = re.fullmatch(r"(.*?)(epochs?)?", text.strip())
    if match[2]:
        least = "(0, inf)" if field.metadata["bounds"] == "[1, inf)" else field.metadata["bounds"]
        _number(match[1] or "1", float, "a number of epochs", least)
    else:
        _number(match[1], int, "a number of steps, or of epochs as in 0.5epoch", field.metadata["bounds"])
    return text.strip()


def _structure(text: str, field: dataclasses.Field) -> str:
    try:
        parse_pattern(text.strip())
    except UserError as error:
        raise ValueError(str(error)) from None
    return text.strip()


def _name_or_path(text: str, field: dataclasses.Field) -> str:
    """A known name, or a path after one of the forms, in which braces hold settings of a run."""
    text, forms = text.strip(), field.metadata["forms"]
    form = next((form for form in forms if text.startswith(form)), None)
    if form is None:
        try:
            return _name(text, field)
        except ValueError as error:
            raise ValueError(f"{error}, or {' or '.join(map(''.join, forms.items()))}") from None
    _path(text.removeprefix(form), field)
    for name in BRACES.findall(text):
        if name not in (known := tuple(field.name for field in dataclasses.fields(RunConfig))):
            raise ValueError(str(unknown("setting", name, known)))
    return text


def _radix(text: str, field: dataclasses.Field) -> str:
    try:
        parse_radix(text.strip())
    except UserError as error:
        raise ValueError(str(error)) from None
    return text.strip()


def _fractions(text: str, field: dataclasses.Field) -> tuple[float, ...]:
    shares = tuple(_number(part, float, "a number", field.metadata["bounds"]) for part in text.split(":"))
    if any(later <= earlier for earlier, later in itertools.pairwise(shares)):
        raise ValueError(f"{text.strip()} does not rise from share to share")
    return shares


def _numbers(text: str, field: dataclasses.Field) -> tuple[float, ...]:
    numbers = tuple(_number(part, float, "a number", field.metadata["bounds"]) for part in text.split(":"))
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{text.strip()} names a number twice")
    return numbers


def _bool(text: str, field: dataclasses.Field) -> bool:
    try:
        return flags.BooleanParser().parse(text.strip())
    except ValueError:
        raise ValueError(f"{text.strip()!r} is neither true nor false") from None


def _shard(text: str, field: dataclasses.Field) -> str:
    """i/n, with i from 1 to n."""
    match = re.fullmatch(r"\s*(\d+)\s*/\s*(\d+)\s*", text)
    if match is None:
        raise ValueError(f"{text.strip()!r} is no share, as 2/8 is the second of eight")
    index, count = int(match[1]), int(match[2])
    if not 1 <= index <= count:
        raise ValueError(f"{text.strip()} is no share: of {count} there are 1/{count} to {count}/{count}")
    return f"{index}/{count}"


def _address(text: str, field: dataclasses.Field) -> str:
    """HOST:PORT, or none."""
    host, _, port = text.strip().rpartition(":")
    if text.strip() == ALONE:
        return ALONE
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ValueError(f"{text.strip()!r} is no HOST:PORT, such as node7:8476, nor auto or none")
    return text.strip()


# kind of a setting -> (text of one value, field) -> value; ValueError says what is wrong
_READ: dict[str, Callable[[str, dataclasses.Field], Any]] = {
    "text": lambda text, field: text,
    "path": _path,
    "name": _name,
    "names": _names,
    "int": lambda text, field: _number(text, int, "an integer", field.metadata["bounds"]),
    "float": lambda text, field: _number(text, float, "a number", field.metadata["bounds"]),
    "fractions": _fractions,
    "numbers": _numbers,
    "sizes": lambda text, field: tuple(
        _number(part, int, "an integer", field.metadata["bounds"]) for part in text.split(",")
    ),
    "bool": _bool,
    "interval": _interval,
    "structure": _structure,
    "name_or_path": _name_or_path,
    "radix": _radix,
    "shard": _shard,
    "address": _address,
}


def read(field: dataclasses.Field, text: str) -> Any:
    """The one value of a setting that a text stands for. Raises ValueError, which says what is wrong."""
    if field.metadata.get("auto") and text.strip() == AUTO:
        return AUTO
    return _READ[field.metadata["kind"]](text, field)


def show(value: Any) -> str:
    """A value as its flag writes it."""
    if isinstance(value, tuple):
        return (":" if isinstance(value[0], str | float) else ",").join(map(str, value))
    if value is None:
        return "not set"
    return "none" if isinstance(value, str) and not value else str(value)


def briefly(values: Iterable[str]) -> dict[str, str]:
    """Value -> a shorter name of it, if it names other runs; the value itself where two names would be equal."""
    names = {value: _brief(value) for value in values}
    return names if len({*names.values()}) == len(names) else {value: value for value in names}


def _brief(value: str) -> str:
    """The workdir and the words of a pattern: from_run:w/runs/*-gmp-*-s{sparsity}-seed{seed}-* is from_run:w/gmp."""
    form, _, path = value.partition(":")
    workdir, runs, pattern = path.partition("/runs/")
    if not runs:
        return value
    words = " ".join(re.findall(r"[^-*?]+", re.sub(r"(-s|-seed)?\{\w+\}", "", pattern)))
    return f"{form}:{Path(workdir).name}{f'/{words}' if words else ''}"


def telling(rows: Iterable[Mapping[str, str]], names: Sequence[str], kept: Collection[str]) -> tuple[str, ...]:
    """The settings without those that others of them bring about: a study of several commands has many that go along.

    Args:
      rows: name -> text of the settings of every run.
      names: the settings that vary among them; the last ones are the first to be left out.
      kept: those that are not.
    """
    distinct = [dict(pairs) for pairs in {tuple((name, row[name]) for name in names) for row in rows}]
    told = list(names)
    for name in reversed(names):
        others = [other for other in told if other != name]
        if name not in kept and len({tuple(row[other] for other in others) for row in distinct}) == len(distinct):
            told = others
    return tuple(told)
