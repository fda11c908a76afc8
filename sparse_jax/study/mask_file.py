"""Mask files: a topology in an .npz, eight entries a byte.

    bits:<layer>     uint8[⌈size / 8⌉], the mask in C order, the first entry in the highest bit
    shape:<layer>    int64[dimensions]

Stored, not compressed, and sorted by layer: the same masks are the same bytes everywhere. A plain .npz with one bool
array a layer, as np.savez writes it, is read as well.
"""

import hashlib
import io
import json
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from sparse_jax.errors import UserError
from sparse_jax.study.store import MASKS, write_atomic

FILE = "file:"  # before the path, where a setting names a mask file
BITS, SHAPE = "bits:", "shape:"
REMEDY = "name a masks.npz of a run, or an .npz of one bool array a layer"


def save_masks(path: str | os.PathLike, masks: Mapping[str, Any]) -> None:
    """Replace the file by these masks, atomically.

    Args:
      path: the file; its folder exists.
      masks: layer name -> bool array in the shape of the kernel, of NumPy or jax.
    """
    arrays = {}
    for name in sorted(masks):
        mask = np.asarray(masks[name])
        if fault := _fault(mask):
            raise ValueError(f"{name} {fault}")
        arrays[BITS + name] = np.packbits(mask)
        arrays[SHAPE + name] = np.array(mask.shape, "<i8")
    content = io.BytesIO()
    np.savez(content, **arrays)
    write_atomic(Path(path), content.getvalue())


def load_masks(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Layer name -> bool array, as `save_masks` or np.savez wrote them; of a folder, those of the run that it is.

    Raises:
      UserError: the file is absent, damaged, or holds something else; one line that names it.
    """
    path = Path(path)
    if path.is_dir():
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
    faults = [f"{name} {fault}" for name, mask in masks.items() if (fault := _fault(mask))]
    if faults or not masks:
        raise UserError(f"{path} is no mask file: {[*faults, 'it holds no array'][0]}; {REMEDY}")
    return masks


def digest(masks: Mapping[str, np.ndarray]) -> str:
    """sha256 over the sorted names, the shapes and the bits: the same however a file stores them."""
    content = hashlib.sha256()
    for name in sorted(masks):
        content.update(json.dumps([name, masks[name].shape]).encode())
        content.update(np.packbits(masks[name]).tobytes())
    return content.hexdigest()


def _fault(mask: np.ndarray) -> str | None:
    """What keeps an array from being a mask."""
    if mask.dtype != bool:
        return f"is {mask.dtype}, not bool"
    if mask.ndim < 2 or not mask.size:
        return f"has the shape {mask.shape}, which no kernel has"
    return None


def _unpack(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays themselves if they are not packed. Raises any exception if bits and shapes do not match."""
    names = [name.removeprefix(BITS) for name in arrays if name.startswith(BITS)]
    if not names:
        return arrays
    masks = {}
    for name in names:
        bits, shape = arrays.pop(BITS + name), tuple(arrays.pop(SHAPE + name).tolist())
        size = math.prod(shape)
        if len(bits) != -(-size // 8):
            raise ValueError(f"{name} has {len(bits)} bytes for {size} entries")
        masks[name] = np.unpackbits(bits, count=size).astype(bool).reshape(shape)
    if arrays:
        raise ValueError(f"{next(iter(arrays))} belongs to no mask")
    return masks
