"""Mask files: a topology in an .npz, eight entries a byte, or its connections one by one.

    bits:<layer>                      uint8[⌈size / 8⌉], the mask in C order, the first entry in the highest bit
    inputs:<layer>, outputs:<layer>   int32[connections] each, sorted by input, then by output: of what was executed
                                      sparsely, in place of the bits
    shape:<layer>                     int64[dimensions]

Stored, not compressed, and sorted by layer: the same masks are the same bytes everywhere. A plain .npz with one bool
array a layer, as np.savez writes it, is read as well, and so is a folder of matrices (`matrix_market`).
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.study.files import write_atomic
from sparse_jax.study.matrix_market import holds_matrices, read_matrices
from sparse_jax.study.store import MASKS

BITS, INPUTS, OUTPUTS, SHAPE = "bits:", "inputs:", "outputs:", "shape:"
REMEDY = "name a masks.npz of a run, an .npz of one bool array a layer, or a folder of LAYER.mtx"
MOST = 2**31 - 1  # positions of a layer that a mask is made of


class Pairs(NamedTuple):
    """The mask of a dense layer by its connections, sorted by input, then by output."""

    inputs: np.ndarray  # int32[connections]
    outputs: np.ndarray  # int32[connections]
    shape: tuple[int, int]

    @property
    def mask(self) -> np.ndarray:
        """bool[inputs, outputs]. Raises UserError where that is too large to be made."""
        if math.prod(self.shape) > MOST:
            raise UserError(
                f"a layer of {self.shape[0]:,} × {self.shape[1]:,} is too large for a mask: only --execution=sparse "
                "can use it"
            )
        mask = np.zeros(self.shape, bool)
        mask[self.inputs, self.outputs] = True
        return mask

    def sum(self) -> int:
        return self.inputs.size

    def any(self) -> bool:
        return self.inputs.size > 0


Topology = Mapping[str, np.ndarray | Pairs]


def pairs_of(outputs: np.ndarray, input_starts: np.ndarray, shape: tuple[int, int]) -> Pairs:
    """The connections of `sparse.links.Links`, on the host."""
    starts, shape = np.asarray(input_starts), tuple(shape)
    inputs = np.repeat(np.arange(shape[0], dtype=np.int32), np.diff(starts))
    return Pairs(inputs, np.asarray(outputs)[: starts[-1]], shape)


def as_pairs(mask: np.ndarray | Pairs) -> Pairs:
    """The connections of a mask of two dimensions."""
    if isinstance(mask, Pairs):
        return mask
    return Pairs(*(side.astype(np.int32) for side in np.nonzero(mask)), mask.shape)


def as_mask(mask: np.ndarray | Pairs) -> np.ndarray:
    """The mask of connections. Raises UserError where that is too large to be made."""
    return mask.mask if isinstance(mask, Pairs) else mask


def save_masks(path: str | os.PathLike, masks: Mapping[str, Any]) -> None:
    """Replace the file by these masks, atomically.

    Args:
      path: the file; its folder exists.
      masks: layer name -> bool array in the shape of the kernel, of NumPy or jax, or `Pairs`.
    """
    arrays = {}
    for name in sorted(masks):
        mask = masks[name]
        if isinstance(mask, Pairs):
            arrays[INPUTS + name], arrays[OUTPUTS + name] = mask.inputs, mask.outputs
        else:
            mask = np.asarray(mask)
            if fault := _fault(mask):
                raise ValueError(f"{name} {fault}")
            arrays[BITS + name] = np.packbits(mask)
        arrays[SHAPE + name] = np.array(mask.shape, "<i8")
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(Path(path), content.getvalue())


def load_masks(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Layer name -> bool array, as `load_topology` reads it; raises UserError as it does, and for layers too large."""
    return {name: as_mask(mask) for name, mask in load_topology(path).items()}


def load_topology(path: str | os.PathLike) -> dict[str, np.ndarray | Pairs]:
    """Layer name -> bool array or pairs, as `save_masks` or np.savez wrote them.

    Of a folder, those of the run it is, or of the matrices it holds.

    Raises:
      UserError: the file is absent, damaged, or holds something else; one line that names it.
    """
    path = Path(path)
    if path.is_dir():
        if not (path / MASKS).exists() and holds_matrices(path):
            return {name: Pairs(*entries) for name, entries in read_matrices(path)}
        path /= MASKS
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"mask file {path} cannot be read: {error.strerror}; {REMEDY}") from None
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            masks = _unpack(dict(file))
    except Exception:  # damage surfaces as any type: of zip, of zlib, of NumPy's header
        raise UserError(f"{path} is no mask file, or a damaged one; {REMEDY}") from None
    arrays = {name: mask for name, mask in masks.items() if not isinstance(mask, Pairs)}
    faults = [f"{name} {fault}" for name, mask in arrays.items() if (fault := _fault(mask))]
    if faults or not masks:
        raise UserError(f"{path} is no mask file: {[*faults, 'it holds no array'][0]}; {REMEDY}")
    return masks


def digest(masks: Topology) -> str:
    """sha256 over the sorted names, the shapes and the bits: the same however a file stores them.

    Of a layer too large for a mask it is over the pairs.
    """
    content = hashlib.sha256()
    for name in sorted(masks):
        mask = masks[name]
        content.update(json.dumps([name, mask.shape]).encode())
        if math.prod(mask.shape) > MOST:
            content.update(np.stack(as_pairs(mask)[:2]).tobytes())
        else:
            content.update(np.packbits(as_mask(mask)).tobytes())
    return content.hexdigest()


def _fault(mask: np.ndarray) -> str | None:
    """What keeps an array from being a mask."""
    if mask.dtype != bool:
        return f"is {mask.dtype}, not bool"
    if mask.ndim < 2 or not mask.size:
        return f"has the shape {mask.shape}, which no kernel has"
    return None


def _unpack(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray | Pairs]:
    """The arrays themselves if they are not packed. Raises any exception if bits or pairs and shapes do not match."""
    names = [name.removeprefix(BITS) for name in arrays if name.startswith(BITS)]
    paired = [name.removeprefix(INPUTS) for name in arrays if name.startswith(INPUTS)]
    if not names and not paired:
        return arrays
    masks = {name: _paired(*(arrays.pop(part + name) for part in (INPUTS, OUTPUTS, SHAPE))) for name in paired}
    for name in names:
        bits, shape = arrays.pop(BITS + name), tuple(arrays.pop(SHAPE + name).tolist())
        size = math.prod(shape)
        if len(bits) != -(-size // 8):
            raise ValueError(f"{name} has {len(bits)} bytes for {size} entries")
        masks[name] = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
    if arrays:
        raise ValueError(f"{next(iter(arrays))} belongs to no mask")
    return masks


def _paired(inputs: np.ndarray, outputs: np.ndarray, shape: np.ndarray) -> Pairs:
    """Raises ValueError where these are no sorted, distinct places of a layer."""
    rows, columns = shape.tolist()
    if inputs.shape != outputs.shape or inputs.ndim != 1 or {inputs.dtype, outputs.dtype} != {np.dtype(np.int32)}:
        raise ValueError("pairs are two lists of int32")
    inside = ((inputs >= 0) & (inputs < rows) & (outputs >= 0) & (outputs < columns)).all()
    steps = np.diff(inputs.astype(np.int64) * columns + outputs)
    if not inside or (steps <= 0).any():
        raise ValueError("pairs are sorted, distinct and inside the layer")
    return Pairs(inputs, outputs, (rows, columns))
