"""Tabular sets: one npz archive each, with the keys x_train, y_train, x_test, y_test."""

import zipfile
from pathlib import Path

import numpy as np

from sparse_jax.data.arrays import Arrays, DatasetInfo, checked, info_of
from sparse_jax.errors import UserError

_RECIPE = f"save it there with numpy.savez and the keys {', '.join(Arrays._fields)}"


def describe(name: str, data_dir: str) -> DatasetInfo:
    return info_of(name, load(name, data_dir))


def load(name: str, data_dir: str) -> Arrays:
    """Read `name`, the name of a set below `data_dir` or a path that ends in .npz.

    Raises:
      UserError: no such file, unreadable or damaged, a key is missing, or `checked` objects.
    """
    path = _find(name, data_dir)
    try:
        with path.open("rb") as file:
            if not zipfile.is_zipfile(file):
                raise UserError(f"{path} is no npz archive, or not the whole of one; {_RECIPE}")
            file.seek(0)
            with np.load(file, allow_pickle=False) as archive:
                missing = [key for key in Arrays._fields if key not in archive.files]
                arrays = None if missing else Arrays(*(archive[key] for key in Arrays._fields))
    except UserError:
        raise
    except Exception as error:  # a damaged archive fails in zipfile, zlib or numpy in many ways
        raise UserError(f"{path} cannot be read as an npz archive: {error!r}") from error
    if arrays is None:
        raise UserError(f"{path} lacks {', '.join(missing)}; a data set has {', '.join(Arrays._fields)}")
    return checked(str(path), arrays)


def _find(name: str, data_dir: str) -> Path:
    if name.endswith(".npz"):
        places = [Path(name).expanduser()]
    else:
        root = Path(data_dir).expanduser()
        folders = (root, root / "tabular", root / ".." / "tabular")
        places = [folder / f"{name}.npz" for folder in folders]
    for path in places:
        if path.is_file():
            return path
        if path.is_dir():
            raise UserError(f"{path} is a folder, no npz archive; {_RECIPE}")
    raise UserError(f"no data set at {' or '.join(map(str, places))}; {_RECIPE}")
