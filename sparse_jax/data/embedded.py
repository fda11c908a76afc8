"""The data set that comes with scikit-learn: no folder, no network."""

import numpy as np

from sparse_jax.data import splits
from sparse_jax.data.arrays import Arrays, DatasetInfo


def describe_digits(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (8, 8, 1), 10, 1_438, 359)


def load_digits(name: str, data_dir: str) -> Arrays:
    """scikit-learn's handwritten digits: uint8[n, 8, 8, 1] with values 0..16.

    There is no official split: the test part is the stratified 20 % of `splits.validation`.
    """
    from sklearn import datasets

    digits = datasets.load_digits()
    x, y = digits.images[..., None].astype(np.uint8), digits.target.astype(np.int32)
    train, test = splits.validation(y, 0.2)
    return Arrays(x[train], y[train], x[test], y[test])
