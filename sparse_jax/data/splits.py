"""Which examples train, validate and test: stratified, fixed, the same for every run's seed."""

from typing import NamedTuple

import numpy as np

from sparse_jax.data.arrays import Arrays, DatasetInfo, info_of
from sparse_jax.errors import UserError

_SEED = 0
_TRAIN, _VALIDATION, _TEST = range(3)  # salts


class Splits(NamedTuple):
    """All examples of a study in one stack: `train` of them, then `validation`, then `test`."""

    x: np.ndarray
    y: np.ndarray
    train: int
    validation: int
    test: int


def subset(y: np.ndarray, size: int, salt: int) -> np.ndarray:
    """Ascending indices of `size` examples with the class proportions of y; size 0 means all.

    Each class gets its quota by the largest remainder; where that is nothing, one example, as far
    as `size` reaches (the larger classes first). Another salt (≥ 0) is another independent choice.

    Raises:
      UserError: size is negative or larger than len(y).
    """
    if not 0 <= size <= len(y):
        raise UserError(f"cannot choose {size:,} of {len(y):,} examples")
    return np.arange(len(y)) if size == 0 else _stratified(y, size, salt)


def validation(y: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Part range(len(y)) into train and round(fraction·len(y)) validation indices, stratified."""
    held_out = _stratified(y, round(fraction * len(y)), _VALIDATION)
    return np.setdiff1d(np.arange(len(y)), held_out, assume_unique=True), held_out


def sizes(info: DatasetInfo, train_size: int, test_size: int, validation_fraction: float) -> tuple[int, int, int]:
    """Train, validation and test counts of `split`, known before the data are read.

    Raises:
      UserError: a size outside 0..available, a fraction outside [0, 1), no example left to train on.
    """
    of = f"training examples of {info.name}"
    train = _size("train_size", train_size, info.train_size, of)
    test = _size("test_size", test_size, info.test_size, f"test examples of {info.name}")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction {validation_fraction} is outside [0, 1)")
    held_out = round(validation_fraction * train)
    if held_out == 0 < validation_fraction:
        raise UserError(f"--validation_fraction={validation_fraction} of {train:,} {of} holds out none: use 0")
    if held_out == train:
        raise UserError(f"validation_fraction {validation_fraction} of {train:,} {of} leaves none to train on")
    return train - held_out, held_out, test


def split(arrays: Arrays, *, train_size: int, test_size: int, validation_fraction: float) -> Splits:
    """Cut the subsets and the validation part, which is a slice of the training subset.

    Raises:
      UserError: as `sizes`, with which it agrees.
    """
    info = info_of("the data set", arrays)
    train, held_out, test = sizes(info, train_size, test_size, validation_fraction)
    chosen = subset(arrays.y_train, train_size, _TRAIN)
    parts = [chosen[part] for part in validation(arrays.y_train[chosen], validation_fraction)]
    train_index = np.concatenate(parts)
    test_index = subset(arrays.y_test, test_size, _TEST)
    return Splits(
        x=np.concatenate([arrays.x_train[train_index], arrays.x_test[test_index]]),
        y=np.concatenate([arrays.y_train[train_index], arrays.y_test[test_index]]),
        train=train,
        validation=held_out,
        test=test,
    )


def _size(flag: str, size: int, available: int, what: str) -> int:
    if size < 0:
        raise UserError(f"{flag} {size} is negative; 0 means all {available:,} {what}")
    if size > available:
        raise UserError(f"{flag} {size} is larger than the {available:,} {what}")
    return size or available


def _stratified(y: np.ndarray, size: int, salt: int) -> np.ndarray:
    _, label, count = np.unique(y, return_inverse=True, return_counts=True)
    order = np.random.default_rng((_SEED, salt)).permutation(len(y))
    by_class = order[np.argsort(label[order], kind="stable")]
    rank_in_class = np.arange(len(y)) - np.repeat(np.cumsum(count) - count, count)
    return np.sort(by_class[rank_in_class < np.repeat(_quotas(count, size), count)])


def _quotas(count: np.ndarray, size: int) -> np.ndarray:
    """Integers of sum `size` nearest to size·count/Σcount, ≥ 1 for the `size` largest classes."""
    total = count.sum()
    quota = size * count // total
    seated = np.argsort(-count, kind="stable")[:size]
    quota[seated] = np.maximum(quota[seated], 1)
    owed = size * count - total * quota
    quota[np.argsort(-owed, kind="stable")[: max(size - quota.sum(), 0)]] += 1
    while quota.sum() > size:
        quota[np.argmax(total * quota - count)] -= 1  # of equal quotas, that of the smaller class
    return quota
