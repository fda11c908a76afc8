"""Which examples train, validate and test: stratified, fixed, the same for every run's seed."""

from bisect import bisect_left
from typing import NamedTuple

import numpy as np

from sparse_jax.data.arrays import Arrays, DatasetInfo, info_of
from sparse_jax.errors import UserError

PARTS = ("train", "validation", "test")  # in the order of `Splits`
_SEED = 0
_TRAIN, _VALIDATION, _TEST = range(3)  # salts
_ROWS = 4096  # examples are copied so many at a time


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
    return np.arange(len(y)) if size == 0 else _stratified(y, size, salt, kept=0)


def validation(y: np.ndarray, fraction: float) -> tuple[np.ndarray, np.ndarray]:
    """Part range(len(y)) into train and round(fraction·len(y)) validation indices, as `hold_out` does."""
    return hold_out(y, round(fraction * len(y)))


def hold_out(y: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Part range(len(y)) into the indices that stay and `size` that are held out, stratified; both ascend.

    Of every class at least one example stays, so that no more than len(y) − classes are held out. Quotas are those of
    `subset`; what would be the last example of a class is one more of the classes that are owed most.
    """
    size = min(size, len(y) - np.unique(y).size)
    held_out = _stratified(y, size, _VALIDATION, kept=1)
    return np.setdiff1d(np.arange(len(y)), held_out, assume_unique=True), held_out


def sizes(info: DatasetInfo, train_size: int, test_size: int, validation_fraction: float) -> tuple[int, int, int]:
    """Train, validation and test counts of `split`, known before the data are read.

    Raises:
      UserError: a size outside 0..available, a fraction outside [0, 1), one that holds out nothing, fewer examples
        left to train on than there are classes.
    """
    of = f"training examples of {info.name}"
    train = _size("train_size", train_size, info.train_size, of)
    test = _size("test_size", test_size, info.test_size, f"test examples of {info.name}")
    if not 0 <= validation_fraction < 1:
        raise UserError(f"validation_fraction {validation_fraction} is outside [0, 1)")
    held_out = round(validation_fraction * train)
    if train - held_out < info.classes:
        raise UserError(
            f"--train_size={train_size} and --validation_fraction={validation_fraction} leave {train - held_out:,} of "
            f"{train:,} {of} to train on, fewer than its {info.classes:,} classes: "
            f"{_remedy(info, train, validation_fraction)}"
        )
    if held_out == 0 < validation_fraction:
        raise UserError(f"--validation_fraction={validation_fraction} of {train:,} {of} holds out none: use 0")
    return train - held_out, held_out, test


def _remedy(info: DatasetInfo, train: int, fraction: float) -> str:
    """The least train_size of which this fraction leaves an example a class, else how many may be held out."""

    def enough(size: int) -> bool:
        held_out = round(fraction * size)
        return size - held_out >= info.classes and (held_out > 0 or fraction == 0)

    least = bisect_left(range(info.train_size + 1), True, key=enough)
    if least <= info.train_size:
        return f"--train_size={least} is the least"
    return f"at most {max(train - info.classes, 0):,} can be held out"


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
        x=_stack((arrays.x_train, train_index), (arrays.x_test, test_index)),
        y=_stack((arrays.y_train, train_index), (arrays.y_test, test_index)),
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


def _stack(*parts: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """What the index chooses of each array, one after the other: no second copy of them exists meanwhile."""
    first = parts[0][0]
    total = sum(index.size for _, index in parts)
    stack = np.empty((total, *first.shape[1:]), np.result_type(*(array for array, _ in parts)))
    filled = 0
    for array, index in parts:
        for start in range(0, index.size, _ROWS):
            rows = array[index[start : start + _ROWS]]
            stack[filled : filled + len(rows)] = rows
            filled += len(rows)
    return stack


def _stratified(y: np.ndarray, size: int, salt: int, kept: int) -> np.ndarray:
    """Ascending indices of `size` examples, which leave `kept` of every class or more."""
    _, label, count = np.unique(y, return_inverse=True, return_counts=True)
    order = np.random.default_rng((_SEED, salt)).permutation(len(y))
    by_class = order[np.argsort(label[order], kind="stable")]
    rank_in_class = np.arange(len(y)) - np.repeat(np.cumsum(count) - count, count)
    quota = _capped(_quotas(count, size), count, size, count - kept)
    return np.sort(by_class[rank_in_class < np.repeat(quota, count)])


def _capped(quota: np.ndarray, count: np.ndarray, size: int, most: np.ndarray) -> np.ndarray:
    """The quotas, none above its `most`; what that frees goes, one by one, where size·count/Σcount is missed most."""
    quota = np.minimum(quota, most)
    for _ in range(size - quota.sum()):
        owed = np.where(quota < most, size * count - count.sum() * quota, -np.inf)
        quota[np.argmax(owed)] += 1
    return quota


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
