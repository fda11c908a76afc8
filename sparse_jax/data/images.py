"""Image sets prepared by tensorflow-datasets as array_record folders, read without TensorFlow."""

import contextlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

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
    records: dict[str, list[tuple[Path, int]]]  # split -> its files, and how many examples each promises
    remedy: str  # where the folder is damaged

    def files(self) -> list[Path]:
        """Whatever decides what is decoded."""
        return [
            *(path for files in self.records.values() for path, _ in files),
            *(self.folder / file for file in _METADATA),
        ]


def describe(name: str, data_dir: str) -> DatasetInfo:
    return find(name, data_dir).info


def load(name: str, data_dir: str) -> Arrays:
    """The highest installed version of `name`, decoded once and then taken from the user's cache.

    Raises:
      UserError: the set is absent, incomplete or damaged, or tensorflow-datasets is not installed.
    """
    prepared = find(name, data_dir)
    path = cache.locate(name.replace("/", "_"), prepared.folder.name, prepared.files())
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
    folder, test, remedy = folders[-1], _TEST.get(name, "test"), f"remove that folder and {recipe}"
    lengths = _metadata(folder, "dataset_info.json", remedy, lambda about: _lengths(about, ("train", test)))
    shape, classes = _metadata(folder, "features.json", remedy, _shape_and_classes)
    records = {}
    for split, promised in lengths.items():
        found = sorted(folder.glob(f"{name.split('/')[0]}-{split}.array_record-*"))
        if len(found) != len(promised):
            raise UserError(f"{folder} holds {len(found)} of {len(promised)} array_record files of {split}; {remedy}")
        records[split] = list(zip(found, promised, strict=True))
    info = DatasetInfo(name, shape, classes, sum(lengths["train"]), sum(lengths[test]))
    return Prepared(folder, info, test, records, remedy)


def _metadata(folder: Path, file: str, remedy: str, parse: Callable[[Any], Any]) -> Any:
    """What `parse` finds in a json file of the folder. Raises UserError if it finds nothing of use."""
    try:
        return parse(json.loads((folder / file).read_text()))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the metadata in {folder} are damaged ({file}: {error!r}); {remedy}") from error


def _lengths(about: Any, splits: tuple[str, ...]) -> dict[str, list[int]]:
    """Split -> the number of examples in each of its files, as dataset_info.json has them."""
    every = {split["name"]: list(map(int, split["shardLengths"])) for split in about["splits"]}
    lengths = {split: every[split] for split in splits}
    if min(sum(lengths[split]) for split in splits) < 1 or min(map(min, lengths.values())) < 0:
        raise ValueError(f"examples by file: {lengths}")
    return lengths


def _shape_and_classes(features: Any) -> tuple[tuple[int, ...], int]:
    """Of the images, and how many, as features.json has them."""
    columns = features["featuresDict"]["features"]
    shape = tuple(map(int, columns["image"]["image"]["shape"]["dimensions"]))
    classes = int(columns["label"]["classLabel"]["numClasses"])
    if len(shape) != 3 or min(*shape, classes - 1) < 1:
        raise ValueError(f"images {shape}, {classes} classes")
    return shape, classes


def _decode(prepared: Prepared) -> Arrays:
    with _told(prepared):
        import tensorflow_datasets as tfds
        from array_record.python.array_record_data_source import ArrayRecordDataSource

        # Not tfds.data_source: it refuses a version that the installed tfds does not know.
        builder = tfds.builder_from_directory(prepared.folder)
    parts = []
    for split, size in (("train", prepared.info.train_size), (prepared.test, prepared.info.test_size)):
        for path, promised in prepared.records[split]:  # of which TFDS believes what the metadata say
            with _told(prepared, f"{split} in {path.name}: "):
                found = len(ArrayRecordDataSource(str(path)))
            if found != promised:
                raise UserError(
                    f"{path} holds {found:,} examples, where dataset_info.json promises {promised:,}; {prepared.remedy}"
                )
        with _told(prepared, f"{split}: "):
            source = builder.as_data_source(split)
        parts += _decode_split(prepared, split, source, size)
    return Arrays(*parts)


def _decode_split(prepared: Prepared, split: str, source: Any, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Images and labels of one split of `size` examples."""
    shape, files = prepared.info.input_shape, prepared.records[split]
    ends = np.cumsum([length for _, length in files])
    x = np.empty((size, *shape), np.uint8)
    y = np.empty(size, np.int32)
    for start in range(0, size, _CHUNK):
        stop = min(start + _CHUNK, size)
        first, last = np.searchsorted(ends, (start, stop - 1), side="right")
        names = " or ".join(path.name for path, _ in files[first : last + 1])
        with _told(prepared, f"{split} in {names}: "):
            examples = source.__getitems__(range(start, stop))
            decoded = np.stack([example["image"] for example in examples])
            if decoded.shape[1:] != shape:  # which assigning might broadcast
                raise ValueError(f"an image has shape {decoded.shape[1:]}, not {shape}")
            x[start:stop] = decoded
            y[start:stop] = [example["label"] for example in examples]
    return x, y


@contextlib.contextmanager
def _told(prepared: Prepared, where: str = "") -> Iterator[None]:
    """Raise whatever fails in reading `where` as a UserError."""
    try:
        yield
    except MemoryError:
        raise
    except ImportError as error:
        raise UserError(
            f"reading {prepared.info.name} needs: pip install tensorflow-datasets array_record opencv-python-headless "
            f"({error})"
        ) from error
    except Exception as error:  # readers and decoders raise RuntimeError, ValueError, OSError, ...
        raise UserError(
            f"cannot decode the images in {prepared.folder}: {where}{error!r}; {prepared.remedy}"
        ) from error


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
