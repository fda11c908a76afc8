"""The workdir of a search for weight agnostic networks: what is on disk, and how it survives a kill at any instant.

    search.json     the settings that it was begun with, versions, commit
    state.npz       the search at the last checkpoint, and its course; a zip file, whose checksums tell damage
    course.csv      one line a generation
    result.json     the best network on the test part
    masks.npz       its connections, in the layers of --model=skip_mlp
    train.flags     the command line with which launch/train.py trains it
    search.lock     held by the process that searches

Files are replaced atomically, and state.npz, the only one that is read back beside search.json, comes first.
"""

import contextlib
import csv
import io
import json
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.search.plan import Plan
from sparse_jax.study.locks import claimed
from sparse_jax.study.store import dump_json, write_atomic

SETTINGS, STATE, COURSE, RESULT, LOCK = "search.json", "state.npz", "course.csv", "result.json", "search.lock"
_OF_A_STUDY = "config.json"


@contextlib.contextmanager
def opened(plan: Plan, origin: Mapping[str, Any]) -> Iterator[Path]:
    """Create or claim the workdir of a search. `origin` is what search.json says of the data and the code.

    Raises:
      UserError: it cannot be written, is another process's, holds a study or a search with other settings, or anything
        with --noresume.
    """
    workdir, search = plan.workdir.absolute(), {"search": "wann", "settings": plan.values}
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=workdir):
            pass
    except OSError as error:
        raise UserError(f"workdir {workdir} cannot be written: {error.strerror}") from None
    if (workdir / _OF_A_STUDY).exists():
        raise UserError(f"{plan.workdir} is the workdir of a study: choose another --workdir")
    with claimed(workdir / LOCK) as holder:
        if holder is not None:
            raise UserError(f"{plan.workdir} is in use by {holder}")
        begun = _read_settings(workdir / SETTINGS)
        if begun is None:
            write_atomic(workdir / SETTINGS, dump_json(search | dict(origin), indent=2))
        elif not plan.asked.host.resume:
            raise UserError(f"{plan.workdir} holds a search already: without --noresume it is continued")
        else:
            _same(plan, begun, search)
            if begun.get("data") != origin["data"]:
                data = plan.asked.data.dataset
                raise UserError(f"the data set {data} is not the one this search was begun on: use another --workdir")
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


def _same(plan: Plan, begun: Mapping[str, Any], search: Mapping[str, Any]) -> None:
    if begun.get("search") != search["search"]:
        raise UserError(f"{plan.workdir} holds another kind of search, {begun.get('search')}: choose another --workdir")
    before, now = begun["settings"], search["settings"]
    if changed := [name for name in now if before.get(name) != now[name]]:
        name = changed[0]
        raise UserError(
            f"{plan.workdir} was begun with --{name}={before.get(name)}, not {now[name]}: choose another --workdir"
        )


def save_state(workdir: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Replace the checkpoint by these arrays; bools take a bit each."""
    content, packed = io.BytesIO(), {}
    for name, array in arrays.items():
        packed[name] = np.packbits(array) if array.dtype == bool else array
    np.savez(content, **packed)
    write_atomic(workdir / STATE, content.getvalue())


def load_state(workdir: Path, like: Mapping[str, Any]) -> dict[str, np.ndarray] | None:
    """The arrays of the checkpoint; None if there is none yet.

    Args:
      workdir: of the search.
      like: name -> anything with the shape and dtype that the array has to have; a first axis of -1 fits any length.

    Raises:
      UserError: it is damaged.
    """
    path = workdir / STATE
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


def write_course(workdir: Path, course: Mapping[str, np.ndarray]) -> None:
    """Replace course.csv by these columns."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["generation", *course])
    columns = [values.tolist() for values in course.values()]
    for generation, row in enumerate(zip(*columns, strict=True), start=1):
        writer.writerow([generation, *(f"{value:.6g}" if isinstance(value, float) else value for value in row)])
    write_atomic(workdir / COURSE, text.getvalue())


def write_result(workdir: Path, result: Mapping[str, Any]) -> None:
    """Replace result.json."""
    write_atomic(workdir / RESULT, dump_json(dict(result), indent=2))
