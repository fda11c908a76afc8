"""The files that every search leaves in its workdir, and what a reader has to know of their state."""

import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparse_jax.errors import UserError
from sparse_jax.search.files import RESULT, SETTINGS
from sparse_jax.study.files import read_object


class Search(NamedTuple):
    """One search, as far as it has come."""

    root: Path  # its workdir, absolute
    kind: str  # its name: what launch/search.py calls it
    begun: dict[str, Any]  # search.json; `settings` is a dict
    result: dict[str, Any] | None  # result.json, if it can be read and is that of such a search
    ended: bool  # whether there is a result.json at all
    lacks: str  # why there is no result, a sentence; "" where there is one


def roots_of(workdirs: Sequence[str]) -> list[Path]:
    """The workdirs as absolute paths, each once."""
    return list(dict.fromkeys(Path(workdir).expanduser().absolute() for workdir in workdirs))


def holds_search(root: Path) -> bool:
    """Whether a folder is the workdir of a search."""
    return (root / SETTINGS).is_file()


def read_search(root: Path) -> Search:
    """Raises UserError where search.json is damaged; nothing else that is wrong keeps a page from being made."""
    begun = read_object(root / SETTINGS)
    if begun is None or not isinstance(begun.get("settings"), dict) or not isinstance(begun.get("search"), str):
        raise UserError(f"{root / SETTINGS} is damaged: restore it, or search anew in another workdir")
    ended, result = (root / RESULT).is_file(), read_object(root / RESULT)
    lacks = ""
    if not ended:
        lacks = f"The search has not ended: there is no {RESULT} yet."
    elif result is None:
        lacks = f"{RESULT} is damaged; the same command as before makes it anew, once it is deleted."
    elif result.get("search") != begun["search"]:
        lacks = f"{RESULT} is not that of this search, {begun['search']}, but says {result.get('search')!r}."
    return Search(root, begun["search"], begun, None if lacks else result, ended, lacks)


# --- values that may be anything ----------------------------------------------------------------------


def number(value: Any) -> float:
    """A finite number, NaN for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return math.nan
    return float(value) if abs(value) <= sys.float_info.max else math.nan


def text(value: Any) -> str | None:
    """A text that says something, None for anything else."""
    return value if isinstance(value, str) and value else None


def objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects of a list; none of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def entries(value: Any) -> dict[str, Any]:
    """A JSON object, an empty one for anything else."""
    return value if isinstance(value, dict) else {}
