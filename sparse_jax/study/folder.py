"""New files and folders of the user: nothing that is there is replaced, and a folder is written whole or not at all."""

import os
import shutil
import socket
import tempfile
from collections.abc import Iterable
from pathlib import Path

from sparse_jax.errors import UserError
from sparse_jax.study.files import write_atomic


def new_path(path: str, what: str, *, folder: bool) -> Path:
    """Where a new file or folder is to be. Raises UserError if something is there, or it cannot be.

    Args:
      path: as the user wrote it.
      what: how messages call it, as in --export=PATH.
      folder: whether it is to be a folder; an empty one may be there.
    """
    try:
        place = Path(path).expanduser().resolve()
        there = place.is_dir()
        if place.exists() and not (folder and there and not any(place.iterdir())):
            fault = "is not empty" if folder and there else "is a folder" if there else "is a file"
            raise UserError(f"{what} {fault}: name a new {'folder' if folder else 'file'}")
        with tempfile.TemporaryFile(dir=next(parent for parent in place.parents if parent.exists())):
            pass
    except (OSError, RuntimeError) as error:
        raise UserError(f"{what} cannot be written: {getattr(error, 'strerror', None) or error}") from None
    return place


def write_folder(folder: Path, files: Iterable[tuple[str, bytes]]) -> None:
    """A folder of these files, by a rename at the end; they are taken one at a time."""
    temporary = folder.with_name(f".{folder.name}.{socket.gethostname()}.{os.getpid()}")
    try:
        temporary.mkdir(parents=True)
        for name, content in files:
            (temporary / name).parent.mkdir(parents=True, exist_ok=True)
            write_atomic(temporary / name, content)
        temporary.rename(folder)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
