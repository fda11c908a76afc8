"""Image sets prepared by tensorflow-datasets as array_record folders, read without TensorFlow."""

import json
import re
import shlex
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_jax.data import cache
from sparse_jax.data.arrays import Arrays, DatasetInfo, checked
from sparse_jax.errors import UserError

_CHUNK = 4096  # one batched read is three times faster than one by one; chunks bound its memory
_METADATA = ("dataset_info.json", "features.json")
_TEST = {  # the split that serves as test, where no labels of a test split were published
    "imagenet_resized/8x8": "validation",
    "imagenet_resized/16x16": "validation",
    "imagenet_resized/32x32": "validation",
    "imagenet_resized/64x64": "validation",
}


class Prepared(NamedTuple):
    """A version folder as its own metadata describes it."""

    folder: Path
    info: DatasetInfo
    test: str  # the split that serves as test
    files: list[Path]  # the records, then the metadata


def describe(name: str, data_dir: str) -> DatasetInfo:
    return find(name, data_dir).info


def load(name: str, data_dir: str) -> Arrays:
    """The highest installed version of `name`, decoded once and then taken from the user's cache.

    Raises:
      UserError: the set is absent, incomplete or damaged, or tensorflow-datasets is not installed.
    """
    prepared = find(name, data_dir)
    path = cache.locate(name.replace("/", "_"), prepared.folder.name, prepared.files)
    cached = cache.read(path, len(Arrays._fields))
    if cached is not None:
        return Arrays(*cached)
    arrays = _decode(prepared)
    _check_labels(prepared, arrays)
    arrays = checked(str(prepared.folder), arrays)
    cache.write(path, arrays)
    return arrays


def versions(name: str, data_dir: str) -> list[Path]:
    """The folders `<data_dir>/<name>/<version>` from the lowest version to the highest, whatever is in them."""
    folders = (Path(data_dir).expanduser() / name).glob("*")
    found = [path for path in folders if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    return sorted(found, key=lambda path: tuple(map(int, path.name.split("."))))


def find(name: str, data_dir: str) -> Prepared:
    """Describe the highest version of a set from its json files, without tfds.

    Raises:
      UserError: there is none, its metadata are damaged, or a file of records is missing.
    """
    recipe = f"prepare it with: python launch/prepare_data.py --dataset={name} --data_dir={shlex.quote(data_dir)}"
    folders = versions(name, data_dir)
    if not folders:
        raise UserError(f"no version of {name} in {Path(data_dir).expanduser() / name}; {recipe}")
    folder, test = folders[-1], _TEST.get(name, "test")
    try:
        info, shards = _metadata(name, test, folder)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the metadata in {folder} are damaged ({error!r}); remove that folder and {recipe}") from error
    files = []
    for split in ("train", test):
        found = sorted(folder.glob(f"{name.split('/')[0]}-{split}.array_record-*"))
        if len(found) != shards[split]:
            raise UserError(
                f"{folder} holds {len(found)} of {shards[split]} array_record files of {split}; "
                f"remove that folder and {recipe}"
            )
        files += found
    return Prepared(folder, info, test, [*files, *(folder / file for file in _METADATA)])


def _metadata(name: str, test: str, folder: Path) -> tuple[DatasetInfo, dict[str, int]]:
    """What the json files say of a set, and how many files each of its splits has."""
    about, features = (json.loads((folder / file).read_text()) for file in _METADATA)
    shards = {split["name"]: list(map(int, split["shardLengths"])) for split in about["splits"]}
    columns = features["featuresDict"]["features"]
    shape = tuple(map(int, columns["image"]["image"]["shape"]["dimensions"]))
    classes = int(columns["label"]["classLabel"]["numClasses"])
    info = DatasetInfo(name, shape, classes, sum(shards["train"]), sum(shards[test]))
    if len(shape) != 3 or min(*shape, classes - 1, info.train_size, info.test_size) < 1:
        raise ValueError(f"images {shape}, {classes} classes, {info.train_size} and {info.test_size} examples")
    return info, {split: len(lengths) for split, lengths in shards.items()}


def _decode(prepared: Prepared) -> Arrays:
    folder, info = prepared.folder, prepared.info
    try:
        import tensorflow_datasets as tfds
    except ImportError as error:
        raise UserError(
            f"reading {info.name} needs: pip install tensorflow-datasets array_record opencv-python-headless"
        ) from error

    def decode_split(split: str, size: int) -> tuple[np.ndarray, np.ndarray]:
        source = builder.as_data_source(split)
        x = np.empty((size, *info.input_shape), np.uint8)
        y = np.empty(size, np.int32)
        for start in range(0, size, _CHUNK):
            stop = min(start + _CHUNK, size)
            examples = source.__getitems__(range(start, stop))
            decoded = np.stack([example["image"] for example in examples])
            if decoded.shape[1:] != info.input_shape:  # which assigning might broadcast
                raise ValueError(f"an image of {split} has shape {decoded.shape[1:]}, not {info.input_shape}")
            x[start:stop] = decoded
            y[start:stop] = [example["label"] for example in examples]
        return x, y

    try:
        # Not tfds.data_source: it refuses a version that the installed tfds does not know.
        builder = tfds.builder_from_directory(folder)
        train = decode_split("train", info.train_size)
        test = decode_split(prepared.test, info.test_size)
    except Exception as error:  # readers and decoders raise RuntimeError, ValueError, OSError, ...
        raise UserError(f"cannot decode the images in {folder}: {error!r}") from error
    return Arrays(*train, *test)


def _check_labels(prepared: Prepared, arrays: Arrays) -> None:
    """Raise UserError for a label outside those that the metadata promise, or a training part that lacks one."""
    classes = prepared.info.classes
    for split, y in (("train", arrays.y_train), (prepared.test, arrays.y_test)):
        wrong = y[(y < 0) | (y >= classes)]
        if wrong.size:
            raise UserError(
                f"{prepared.folder}: {split} holds label {wrong[0]}, outside 0..{classes - 1} of its metadata"
            )
    missing = np.setdiff1d(np.arange(classes), arrays.y_train)
    if missing.size:
        raise UserError(f"{prepared.folder}: no training example of class {missing[0]}, one of {classes}")
