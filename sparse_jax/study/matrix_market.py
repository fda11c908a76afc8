"""Topologies in the MatrixMarket format: a folder of one coordinate matrix a layer.

    LAYER.mtx    the kernel LAYER/kernel, inputs × outputs; every entry is a connection, whatever its value

Sub-folders are part of the name of a layer. What is written is of the field `pattern`, which has no values.
"""

import io
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.study.folder import write_folder

ENDING, KERNEL = ".mtx", "/kernel"
MOST = 2**31 - 1  # rows or columns


class Entries(NamedTuple):
    """A matrix by its entries, sorted by row, then by column."""

    rows: np.ndarray  # int32[entries]
    columns: np.ndarray  # int32[entries]
    shape: tuple[int, int]


def holds_matrices(folder: Path) -> bool:
    """Whether a path is a folder of such files."""
    return folder.is_dir() and any(folder.rglob(f"*{ENDING}"))


def write_matrices(folder: Path, masks: Mapping[str, np.ndarray]) -> None:
    """Write the folder, which is not there, whole or not at all. Raises UserError for what is no matrix."""
    if others := [name.removesuffix(KERNEL) for name, mask in masks.items() if mask.ndim != 2]:
        raise UserError(f"{', '.join(others)} are no matrices, which MatrixMarket is for: write an .npz")
    write_folder(folder, ((name.removesuffix(KERNEL) + ENDING, _text(mask)) for name, mask in masks.items()))


def _text(mask: np.ndarray) -> bytes:
    from scipy import io as scipy_io
    from scipy import sparse

    content = io.BytesIO()
    scipy_io.mmwrite(content, sparse.coo_array(mask), field="pattern", symmetry="general")
    return content.getvalue()


def read_matrices(folder: Path) -> Iterator[tuple[str, Entries]]:
    """Layer name and entries. Raises UserError for a file that is none, or that has an entry twice."""
    for path in sorted(folder.rglob(f"*{ENDING}")):
        yield path.relative_to(folder).with_suffix("").as_posix() + KERNEL, _read(path)


def _read(path: Path) -> Entries:
    from scipy import io as scipy_io

    try:
        *_, form, _, symmetry = scipy_io.mminfo(path)
        if (form, symmetry) != ("coordinate", "general"):
            raise UserError(f"{path} is an {form} {symmetry} matrix: write it as coordinate general")
        matrix = scipy_io.mmread(path, spmatrix=False)
        rows, columns = matrix.coords
        if min(matrix.shape) < 1 or max(matrix.shape) > MOST:
            raise UserError(f"{path} is a matrix of {matrix.shape[0]:,} × {matrix.shape[1]:,}, which no kernel is")
    except (OSError, ValueError, OverflowError, MemoryError) as error:
        raise UserError(f"{path} is no MatrixMarket file, or a damaged one: {error}") from None
    order = np.lexsort((columns, rows))
    rows, columns = rows[order].astype(np.int32), columns[order].astype(np.int32)
    if ((np.diff(rows) == 0) & (np.diff(columns) == 0)).any():
        raise UserError(f"{path} has an entry twice: write each connection once")
    return Entries(rows, columns, matrix.shape)
