"""Data sets that come with the program: no folder, no network."""

import numpy as np

from sparse_jax.data import splits
from sparse_jax.data.arrays import Arrays, DatasetInfo

_CLUSTERS = 10
_FEATURES = 64
_TRAIN, _TEST = 2_000, 500
_CENTRE_STD = 0.45  # against unit noise: nearest true centre 96 %, an MLP about 93 % on test


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


def describe_synthetic(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (_FEATURES,), _CLUSTERS, _TRAIN, _TEST)


def load_synthetic(name: str, data_dir: str) -> Arrays:
    """Overlapping Gaussian clusters: x = centre[y] + noise, centre ~ N(0, 0.45²), noise ~ N(0, 1).

    Always the draw of `default_rng(0)`: float32[n, 64], every tenth example of the same class.
    """
    rng = np.random.default_rng(0)
    centre = rng.normal(scale=_CENTRE_STD, size=(_CLUSTERS, _FEATURES))
    y = np.arange(_TRAIN + _TEST, dtype=np.int32) % _CLUSTERS
    x = (centre[y] + rng.normal(size=(y.size, _FEATURES))).astype(np.float32)
    return Arrays(x[:_TRAIN], y[:_TRAIN], x[_TRAIN:], y[_TRAIN:])
