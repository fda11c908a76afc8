"""Decoded data sets in the user's cache folder: a convenience that may be lost at any time.

A file holds the arrays one after the other in npy format, then the blake2b digest of all that
precedes. Being one file, renamed into place, it is never a mixture of two writers.
"""

import contextlib
import hashlib
import io
import os
import uuid
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import BinaryIO

import numpy as np

_DIGEST = hashlib.blake2b().digest_size


class _Hashed:
    """A file to write to that knows the digest of what was written: the arrays are never in memory as bytes."""

    def __init__(self, file: BinaryIO):
        self.file, self.content = file, hashlib.blake2b()

    def write(self, data: bytes) -> int:
        self.content.update(data)
        return self.file.write(data)


def locate(name: str, version: str, sources: Iterable[Path]) -> Path:
    """The cache file of what is decoded from `sources`: other sizes or mtimes, another file."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = hashlib.blake2b(repr(sorted(stats)).encode(), digest_size=8).hexdigest()
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sparse_jax" / "data" / f"{name}-{version}-{key}.npy"


def read(path: Path, count: int) -> list[np.ndarray] | None:
    """The `count` arrays of the file, read-only; None if it is absent, or damaged, which warns."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    body = memoryview(raw)[:-_DIGEST]
    if hashlib.blake2b(body).digest() == raw[-_DIGEST:]:
        with contextlib.suppress(ValueError, TypeError):
            return _views(raw, len(body), count)
    warnings.warn(f"the cache file {path} is damaged; decoding again", stacklevel=2)
    return None


def _views(raw: bytes, end: int, count: int) -> list[np.ndarray]:
    """The arrays that fill raw[:end], in place. Raises ValueError or TypeError if they are not `count`."""
    stream = io.BytesIO(raw)  # shares the bytes
    arrays = []
    while stream.tell() < end:
        if np.lib.format.read_magic(stream) != (1, 0):
            raise ValueError("not what np.save writes")
        shape, columns_first, dtype = np.lib.format.read_array_header_1_0(stream)
        array = np.ndarray(shape, dtype, raw, stream.tell(), order="F" if columns_first else "C")
        stream.seek(array.nbytes, io.SEEK_CUR)
        arrays.append(array)
    if len(arrays) != count or stream.tell() != end:
        raise ValueError(f"{len(arrays)} arrays of {stream.tell()} bytes, not {count} of {end}")
    return arrays


def write(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Store the arrays, or warn: a folder that cannot be written costs time, not the run."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            hashed = _Hashed(file)
            for array in arrays:
                np.save(hashed, array, allow_pickle=False)
            file.write(hashed.content.digest())
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"cannot cache the decoded data set: {error}", stacklevel=2)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
