"""The data sets by name. Imports no jax: a wrong name or an absent folder is reported at once."""

from collections.abc import Callable
from typing import NamedTuple

from sparse_jax.data import embedded, images, tabular
from sparse_jax.data.arrays import Arrays, DatasetInfo
from sparse_jax.errors import UserError, unknown

__all__ = ["DATASETS", "Arrays", "DatasetInfo", "Source", "describe", "load"]


class Source(NamedTuple):
    """How to answer for one data set, given its name and `data_dir`."""

    describe: Callable[[str, str], DatasetInfo]
    load: Callable[[str, str], Arrays]


_IMAGES = Source(images.describe, images.load)
_TABULAR = Source(tabular.describe, tabular.load)

DATASETS: dict[str, Source] = {
    "digits": Source(embedded.describe_digits, embedded.load_digits),
    "synthetic": Source(embedded.describe_synthetic, embedded.load_synthetic),
    "mnist": _IMAGES,
    "fashion_mnist": _IMAGES,
    "cifar10": _IMAGES,
    "madelon": _TABULAR,
    "coil20": _TABULAR,
    "prostate_ge": _TABULAR,
    "basehock": _TABULAR,
    "leukemia": _TABULAR,
    "colon": _TABULAR,
    "lung_small": _TABULAR,
}


def describe(name: str, data_dir: str) -> DatasetInfo:
    """Shapes and sizes of a data set, without decoding images.

    Args:
      name: a key of DATASETS, or a path that ends in .npz.
      data_dir: folder of the TFDS sets (`<name>/<version>/`); the tabular ones (`<name>.npz`) lie
        in it, in its `tabular` or in the `tabular` beside it. Embedded sets and paths ignore it.

    Raises:
      UserError: one line that says what is missing or damaged, and where.
    """
    return _source(name).describe(name, data_dir)


def load(name: str, data_dir: str) -> Arrays:
    """The arrays that `describe` describes; same arguments and errors."""
    return _source(name).load(name, data_dir)


def _source(name: str) -> Source:
    if name.endswith(".npz"):
        return _TABULAR
    if name not in DATASETS:
        raise UserError(f"{unknown('dataset', name, DATASETS)}, or a path that ends in .npz")
    return DATASETS[name]
