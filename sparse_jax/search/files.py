"""The workdir of a search, whatever is searched: whose it is, and arrays that survive a kill at any instant.

    search.json     the settings that it was begun with, versions, commit
    result.json     what was found
    search.lock     held by the process that searches

Files are replaced atomically.
"""

import contextlib
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_jax.config import StudyConfig
from sparse_jax.errors import UserError
from sparse_jax.study.files import dump_json, write_atomic
from sparse_jax.study.locks import claimed

SETTINGS, RESULT, LOCK = "search.json", "result.json", "search.lock"
_OF_A_STUDY = "config.json"


class Place(NamedTuple):
    """Where a search is kept, and what it is."""

    workdir: Path  # as the user wrote it
    kind: str  # a name of launch/search.py
    values: Mapping[str, str]  # all that determines its course, as the flags write it
    dataset: str
    host: StudyConfig


@contextlib.contextmanager
def opened(place: Place, origin: Mapping[str, Any]) -> Iterator[Path]:
    """Create or claim the workdir of a search.

    Args:
      place: where, and what.
      origin: of `provenance.origin`, and the `lanes` on which its bits depend if they do.

    Raises:
      UserError: it cannot be written, is another process's, holds a study or a search with other settings, data or
        lanes, or anything with --noresume.
    """
    workdir, search = place.workdir.absolute(), {"search": place.kind, "settings": dict(place.values)}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written: {error.strerror}") from None
    if (workdir / _OF_A_STUDY).exists():
        raise UserError(f"{place.workdir} is the workdir of a study: choose another --workdir")
    with claimed(workdir / LOCK) as holder:
        if holder is not None:
            raise UserError(f"{place.workdir} is in use by {holder}")
        begun = _read_settings(workdir / SETTINGS)
        if begun is None:
            write_atomic(workdir / SETTINGS, dump_json(search | dict(origin), indent=2))
        elif not place.host.resume:
            raise UserError(f"{place.workdir} holds a search already: without --noresume it is continued")
        else:
            _same(place, begun, search)
            _same_ground(place, begun, origin)
        yield workdir


def _read_settings(path: Path) -> dict | None:
    try:
        begun = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError):
        begun = None
    if not isinstance(begun, dict) or not isinstance(begun.get("settings"), dict):
        raise UserError(f"{path} is damaged; restore it or choose another --workdir")
    return begun


def _same(place: Place, begun: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    if begun.get("search") != search["search"]:
        raise UserError(f"{place.workdir} holds a search by {begun.get('search')}: choose another --workdir")
    before, now = begun["settings"], search["settings"]
    if changed := [name for name in now if before.get(name) != now[name]]:
        name = changed[0]
        raise UserError(
            f"{place.workdir} was begun with --{name}={before.get(name)}, not {now[name]}: choose another --workdir"
        )


def _same_ground(place: Place, begun: Mapping[str, Any], origin: Mapping[str, Any]) -> None:
    if begun.get("data") != origin["data"]:
        raise UserError(f"the data set {place.dataset} is not the one this search was begun on: use another --workdir")
    if begun.get("lanes") != origin.get("lanes"):
        raise UserError(
            f"this search was begun with {begun.get('lanes')} lanes, not {origin.get('lanes')}: its results would "
            "differ in the last bit; --layout=map has 1 lane, --layout=vmap --lane_width=N has N"
        )


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the file, an .npz whose checksums tell damage, by these arrays; bools take a bit each."""
    content, packed = io.BytesIO(), {}
    for name, array in arrays.items():
        packed[name] = np.packbits(array) if array.dtype == bool else array
    np.savez(content, **packed)
    write_atomic(path, content.getvalue())


def load_arrays(path: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of a file; None if there is none yet.

    Args:
      path: of `save_arrays`.
      like: name -> anything with the shape and dtype that the array has to have; a first axis of -1 fits any length.

    Raises:
      UserError: it is damaged.
    """
    try:
        with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as file:
            return {name: _unpacked(file[name], leaf) for name, leaf in like.items()}
    except FileNotFoundError:
        return None
    except Exception:  # damage surfaces as any type: of zip, of zlib, of NumPy's header
        raise UserError(f"{path} is damaged: delete it, and the same command begins anew") from None


def _unpacked(array: np.ndarray, like: Any) -> np.ndarray:
    if like.dtype == bool:
        array = np.unpackbits(array, count=int(np.prod(like.shape))).astype(bool)
    return array.reshape(like.shape)
