"""Download and prepare a set of the TFDS catalogue: the only part that needs TensorFlow, and the network."""

import contextlib
import shlex
import socket
import sys
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from sparse_jax.data import images
from sparse_jax.data.arrays import DatasetInfo
from sparse_jax.data.catalog import IMAGES, describe, source_of
from sparse_jax.errors import UserError

_NEEDED = ("tensorflow_datasets", "tensorflow", "importlib_resources")  # by TFDS where it prepares, not where it reads
_INSTALL = "run pip install -e '.[prepare]'"


def prepare(name: str, data_dir: str, make_builder: Callable[[str, str], Any]) -> str:
    """Have a data set ready below `data_dir`: what is there is left as it is.

    Args:
      name: as `catalog.describe` takes it.
      data_dir: as there; also takes what TFDS downloads, in `downloads`.
      make_builder: (name, folder) -> the `tfds.core.DatasetBuilder` that prepares it there: `tfds_builder`.

    Returns:
      one line that says what is there.

    Raises:
      UserError: one line that says what failed and what to do.
    """
    if source_of(name) is not IMAGES:
        return f"nothing to prepare: {_line(describe(name, data_dir))}"
    there = bool(images.versions(name, data_dir))
    if not there:
        folder = Path(data_dir).expanduser()
        if folder.exists() and not folder.is_dir():
            raise UserError(f"--data_dir={data_dir} is a file, not a folder")
        with contextlib.redirect_stdout(sys.stderr):  # stdout is for the one line
            _build(name, folder, make_builder)
    prepared = images.find(name, data_dir)
    version, folder = prepared.folder.name, shlex.quote(str(prepared.folder))
    return f"{'there already' if there else 'prepared'}: {_line(prepared.info)}, version {version} in {folder}"


def tfds_builder(name: str, folder: str) -> Any:
    """The builder of a catalogue set that writes array_record below `folder`.

    Raises:
      UserError: TFDS, or what it needs to prepare a set, is not installed or cannot be imported.
    """
    missing = [module for module in _NEEDED if find_spec(module) is None]
    if missing:
        raise UserError(f"preparing {name} needs {' and '.join(missing)}; {_INSTALL}")
    try:
        import tensorflow_datasets as tfds
    except Exception as error:  # as versions of its dependencies that do not go together
        raise UserError(
            f"cannot import tensorflow_datasets: {type(error).__name__}: {error}; {_INSTALL} in a fresh environment"
        ) from error

    return tfds.builder(name, data_dir=folder, file_format="array_record")


def _build(name: str, folder: Path, make_builder: Callable[[str, str], Any]) -> None:
    """Download and prepare. Raises UserError for whatever fails."""
    place = folder / name / "VERSION"
    try:
        builder = make_builder(name, str(folder))
        place = folder / name / str(builder.version)
        _refuse_offline(name, builder.url_infos, _remedy(place))
        builder.download_and_prepare()
    except UserError:
        raise
    except Exception as error:  # TFDS, requests, TensorFlow and the disk fail in many ways
        raise UserError(f"cannot prepare {name}: {type(error).__name__}: {error}; {_remedy(place)}") from error


def _remedy(place: Path) -> str:
    return (
        f"without network, prepare it on a machine that has one and copy the folder {place} from there, or give "
        "training --dataset=FILE.npz"
    )


def _line(info: DatasetInfo) -> str:
    sizes = f"{info.train_size:,} train and {info.test_size:,} test examples"
    return f"{info.name}, {sizes} of {'x'.join(map(str, info.input_shape))}, {info.classes} classes"


def _refuse_offline(name: str, urls: Iterable[str], remedy: str) -> None:
    """Refuse at once where no host of the downloads has an address: TFDS tries for three minutes, and warns meanwhile.

    A proxy looks the addresses up by itself.
    """
    hosts = sorted({urllib.parse.urlsplit(url).hostname for url in urls} - {None})
    if not hosts or urllib.request.getproxies():
        return
    for host in hosts:
        try:
            socket.getaddrinfo(host, None)
        except OSError as error:
            failure = f"{host}: {error.strerror}"
        else:
            return
    raise UserError(f"cannot prepare {name}: no address of {failure}; {remedy}")
