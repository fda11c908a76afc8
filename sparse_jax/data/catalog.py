"""The data sets by name. Imports no jax: a wrong name or an absent folder is reported at once."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from sparse_jax.data import csv_file, embedded, images, synthetic, tabular
from sparse_jax.data.arrays import Arrays, DatasetInfo
from sparse_jax.errors import UserError, unknown

__all__ = [
    "DATASETS", "FILES", "IMAGES", "Arrays", "DatasetInfo", "Source", "describe", "load", "make_reader",
    "source_of",
]  # fmt: skip


class Source(NamedTuple):
    """How to answer for one data set, given its name and `data_dir`."""

    describe: Callable[[str, str], DatasetInfo]
    load: Callable[[str, str], Arrays]


IMAGES = Source(images.describe, images.load)
_TABULAR = Source(tabular.describe, tabular.load)

# The TFDS sets of one image and one label. Not emnist/letters: TFDS cuts the published files of 124,800 and 20,800
# letters at the first 88,800 and 14,800, and its metadata promise 37 classes for the labels 1..26.
DATASETS: dict[str, Source] = {
    "digits": Source(embedded.describe_digits, embedded.load_digits),
    "synthetic": Source(synthetic.describe_synthetic, synthetic.load_synthetic),
    "separable": Source(synthetic.describe_separable, synthetic.load_separable),
    "two_spirals": Source(synthetic.describe_two_spirals, synthetic.load_two_spirals),
    "madelon_like": Source(synthetic.describe_madelon_like, synthetic.load_madelon_like),
    "mnist": IMAGES,
    "fashion_mnist": IMAGES,
    "kmnist": IMAGES,
    "emnist/balanced": IMAGES,
    "emnist/byclass": IMAGES,
    "emnist/bymerge": IMAGES,
    "emnist/digits": IMAGES,
    "emnist/mnist": IMAGES,
    "cifar10": IMAGES,
    "cifar100": IMAGES,
    "svhn_cropped": IMAGES,
    "imagenet_resized/8x8": IMAGES,
    "imagenet_resized/16x16": IMAGES,
    "imagenet_resized/32x32": IMAGES,
    "imagenet_resized/64x64": IMAGES,
    "madelon": _TABULAR,
    "coil20": _TABULAR,
    "prostate_ge": _TABULAR,
    "basehock": _TABULAR,
    "leukemia": _TABULAR,
    "colon": _TABULAR,
    "lung_small": _TABULAR,
}

# by the ending of a path
FILES: dict[str, Source] = {
    ".npz": _TABULAR,
    ".csv": Source(csv_file.describe, csv_file.load),
}


def describe(name: str, data_dir: str) -> DatasetInfo:
    """Shapes and sizes of a data set, without decoding images.

    Args:
      name: a key of DATASETS, or a path that ends as a key of FILES.
      data_dir: folder of the TFDS sets (`<name>/<version>/`); the tabular ones (`<name>.npz`) lie
        in it, in its `tabular` or in the `tabular` beside it. The others ignore it, and so do paths.

    Raises:
      UserError: one line that says what is missing or damaged, and where.
    """
    return source_of(name).describe(name, data_dir)


def load(name: str, data_dir: str) -> Arrays:
    """The arrays that `describe` describes; same arguments and errors."""
    return source_of(name).load(name, data_dir)


def make_reader(data_dir: str) -> Callable[[str], Arrays]:
    """name -> arrays as `load` has them; the latest ones stay, so that to ask again costs nothing."""
    folder = str(Path(data_dir).expanduser())
    return functools.lru_cache(maxsize=1)(lambda name: load(name, folder))


def source_of(name: str) -> Source:
    """The source of a name or path. Raises UserError for an unknown one."""
    for ending, source in FILES.items():
        if name.endswith(ending):
            return source
    if name not in DATASETS:
        raise UserError(f"{unknown('dataset', name, DATASETS)}, or a path that ends in {' or '.join(FILES)}")
    return DATASETS[name]
