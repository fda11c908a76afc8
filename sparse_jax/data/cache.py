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

import numpy as np

_DIGEST = hashlib.blake2b().digest_size


def locate(name: str, version: str, sources: Iterable[Path]) -> Path:
    """The cache file of what is decoded from `sources`: other sizes or mtimes, another file."""
    stats = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in sources]
    key = hashlib.blake2b(repr(sorted(stats)).encode(), digest_size=8).hexdigest()
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "sparse_jax" / "data" / f"{name}-{version}-{key}.npy"


def read(path: Path, count: int) -> list[np.ndarray] | None:
    """The `count` arrays of the file; None if it is absent, or damaged, which warns."""
    try:
        raw = path.read_bytes()
    except OSError:
        return None
    if hashlib.blake2b(memoryview(raw)[:-_DIGEST]).digest() != raw[-_DIGEST:]:
        warnings.warn(f"the cache file {path} is damaged; decoding again", stacklevel=2)
        return None
    stream = io.BytesIO(raw)
    return [np.load(stream, allow_pickle=False) for _ in range(count)]


def write(path: Path, arrays: Sequence[np.ndarray]) -> None:
    """Store the arrays, or warn: a folder that cannot be written costs time, not the run."""
    body = io.BytesIO()
    for array in arrays:
        np.save(body, array, allow_pickle=False)
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            file.write(body.getbuffer())
            file.write(hashlib.blake2b(body.getbuffer()).digest())
        temporary.replace(path)
    except OSError as error:
        warnings.warn(f"cannot cache the decoded data set: {error}", stacklevel=2)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
