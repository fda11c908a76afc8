"""What every data set is once read: four NumPy arrays, checked, and their description."""

from typing import NamedTuple

import numpy as np

from sparse_jax.errors import UserError

LARGEST = 1e18  # of the inputs: its square, which normalisations form, is within float32


class DatasetInfo(NamedTuple):
    """What a program must know of a data set before it compiles."""

    name: str
    input_shape: tuple[int, ...]  # of one example
    classes: int
    train_size: int
    test_size: int


class Arrays(NamedTuple):
    """Inputs uint8[n, height, width, channels] or float32[n, ...]; labels int32[n], 0..classes-1."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray


def info_of(name: str, arrays: Arrays) -> DatasetInfo:
    return DatasetInfo(
        name=name,
        input_shape=arrays.x_train.shape[1:],
        classes=int(arrays.y_train.max()) + 1,
        train_size=len(arrays.y_train),
        test_size=len(arrays.y_test),
    )


def checked(source: str, arrays: Arrays) -> Arrays:
    """Bring the arrays to the dtypes of `Arrays`, or say what is wrong with them.

    Inputs uint8[n, height, width, channels] stay what they are; all others become float32.

    Raises:
      UserError: an empty split, NaN, infinity or |x| beyond 1e18, inputs and labels of different lengths or shapes,
        inputs that are integers in one split and floats in the other, which hardly have one scale, labels that are not
        the integers 0..classes-1 without a gap; the message begins with `source`.
    """
    x_train, y_train = _checked_split(source, "train", arrays.x_train, arrays.y_train)
    x_test, y_test = _checked_split(source, "test", arrays.x_test, arrays.y_test)
    dtypes = arrays.x_train.dtype, arrays.x_test.dtype
    if (dtypes[0].kind == "f") != (dtypes[1].kind == "f"):
        raise UserError(
            f"{source}: x_train is {dtypes[0]} but x_test {dtypes[1]}: both must be integers, or both floats, on one "
            "scale"
        )
    if x_train.shape[1:] != x_test.shape[1:]:
        raise UserError(
            f"{source}: an example of x_train has shape {x_train.shape[1:]}, one of x_test {x_test.shape[1:]}"
        )
    labels = np.unique(y_train)
    if labels.size < 2 or not np.array_equal(labels, np.arange(labels.size)):
        raise UserError(
            f"{source}: the labels in y_train must be 0, 1, ..., classes-1 without a gap; "
            f"found {np.array2string(labels, threshold=10, separator=', ')}"
        )
    strangers = np.setdiff1d(y_test, labels)
    if strangers.size:
        raise UserError(f"{source}: y_test holds label {strangers[0]}, which y_train lacks")
    return Arrays(x_train, y_train.astype(np.int32), x_test, y_test.astype(np.int32))


def _checked_split(source: str, split: str, x: np.ndarray, y: np.ndarray):
    if x.ndim < 2 or x.dtype.kind not in "buif":
        raise UserError(f"{source}: x_{split} must be numbers[n, features...]; found {x.dtype}{list(x.shape)}")
    if y.ndim != 1 or y.dtype.kind not in "ui":
        raise UserError(f"{source}: y_{split} must be integers[n]; found {y.dtype}{list(y.shape)}")
    if len(x) != len(y):
        raise UserError(f"{source}: x_{split} has {len(x)} examples but y_{split} has {len(y)}")
    if x.size == 0:
        raise UserError(f"{source}: x_{split} is empty, shape {x.shape}")
    if x.dtype == np.uint8 and x.ndim == 4:
        return x, y
    with np.errstate(over="ignore"):  # a float64 beyond float32 becomes inf, reported next
        x = x.astype(np.float32, copy=False)
    low, high = float(x.min()), float(x.max())
    if not np.isfinite([low, high]).all():
        raise UserError(f"{source}: x_{split} holds NaN or infinity (as float32)")
    if max(-low, high) > LARGEST:
        value = low if -low > high else high
        raise UserError(f"{source}: x_{split} holds {value:g}, beyond ±{LARGEST:g}: scale it down")
    return x, y
