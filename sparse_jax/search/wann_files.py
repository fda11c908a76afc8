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

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparse_jax.search.files import RESULT
from sparse_jax.study.files import dump_json, write_atomic

STATE, COURSE = "state.npz", "course.csv"


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
