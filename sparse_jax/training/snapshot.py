"""What a checkpoint holds, for those who only look: they need not know its tree, and leave the folder as it is.

`Checkpoints` belongs to the process that trains: opening a folder with it removes what another process is writing.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np
import orbax.checkpoint as ocp

from sparse_jax.training.checkpoint import (
    DAMAGED,
    by_itself,
    debris_silenced,
    pass_over,
    seal,
    silence_orbax,
    with_keys,
)

_ATTRIBUTE = re.compile(r"\.(\w+)|(\[(?:'[^']*'|\d+)\])")


class Snapshot(NamedTuple):
    """One step of a cohort."""

    step: int
    leaves: dict[str, np.ndarray | jax.Array]  # path as `keystr` writes it -> array, or array of PRNG keys
    meta: dict


def read_newest(directory: Path, wanted: Callable[[dict], bool]) -> Snapshot | None:
    """The newest step of a folder that is whole; every newer one is passed over with one warning.

    Args:
      directory: of the `Checkpoints` of one cohort. It may be training: nothing here is changed.
      wanted: meta -> whether to read the step; the first that is not wanted ends the search.

    Returns:
      None if no step is whole, or it is not wanted.
    """
    silence_orbax()
    steps = [int(folder.name) for folder in directory.iterdir() if folder.is_dir() and folder.name.isdigit()]
    with debris_silenced():
        for step in sorted(steps, reverse=True):
            try:
                record = json.loads((directory / str(step) / "meta" / "metadata").read_text())
                return _read(directory / str(step), record) if wanted(record["meta"]) else None
            except Exception as error:  # damage surfaces as any type, also from C++
                pass_over(directory / str(step), error)
    return None


def _read(folder: Path, record: dict) -> Snapshot:
    """Raises any exception if the step is not the one that was saved."""
    with ocp.StandardCheckpointer(multiprocessing_options=by_itself()) as reader:
        saved = reader.metadata((folder / "state").absolute()).item_metadata
        if saved is None:
            raise ValueError("the description of its arrays is gone")
        like = jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), saved.tree)
        state = reader.restore((folder / "state").absolute(), like)
    found = {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree.leaves_with_path(state)}
    leaves = {path: with_keys(found[_as_keys(path)], leaf) for path, leaf in record["leaves"].items()}
    if seal(int(folder.name), leaves.items(), record["meta"]) != record["digest"]:
        raise ValueError(DAMAGED)
    return Snapshot(int(folder.name), leaves, record["meta"])


def _as_keys(path: str) -> str:
    """The path in a tree of dicts, as which Orbax restores every tree of which it is not told the form."""
    return _ATTRIBUTE.sub(lambda match: match[2] or f"['{match[1]}']", path)
