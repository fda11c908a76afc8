"""Image sets prepared by tensorflow-datasets as array_record folders, read without TensorFlow."""

import json
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from sparse_jax.data import cache
from sparse_jax.data.arrays import Arrays, DatasetInfo, checked
from sparse_jax.errors import UserError

_CHUNK = 4096  # one batched read is three times faster than one by one; chunks bound its memory


class Prepared(NamedTuple):
    """A version folder as its own metadata describes it."""

    folder: Path
    info: DatasetInfo
    records: list[Path]


def describe(name: str, data_dir: str) -> DatasetInfo:
    return find(name, data_dir).info


def load(name: str, data_dir: str) -> Arrays:
    """The highest installed version of `name`, decoded once and then taken from the user's cache.

    Raises:
      UserError: the set is absent, incomplete or damaged, or tensorflow-datasets is not installed.
    """
    prepared = find(name, data_dir)
    path = cache.locate(name, prepared.folder.name, prepared.records)
    cached = cache.read(path, len(Arrays._fields))
    if cached is not None:
        return Arrays(*cached)
    arrays = checked(str(prepared.folder), _decode(prepared))
    cache.write(path, arrays)
    return arrays


def find(name: str, data_dir: str) -> Prepared:
    """Describe the highest `<data_dir>/<name>/<version>/` from its json files, without tfds."""
    root = Path(data_dir).expanduser() / name
    versions = [path for path in root.glob("*") if re.fullmatch(r"\d+\.\d+\.\d+", path.name)]
    recipe = (
        "prepare it with: pip install tensorflow importlib_resources && "
        f"tfds build {name} --data_dir={data_dir} --file_format=array_record"
    )
    if not versions:
        raise UserError(f"no version of {name} in {root}; {recipe}")
    folder = max(versions, key=lambda path: tuple(map(int, path.name.split("."))))
    try:
        about = json.loads((folder / "dataset_info.json").read_text())
        shards = {split["name"]: list(map(int, split["shardLengths"])) for split in about["splits"]}
        features = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
        shape = tuple(map(int, features["image"]["image"]["shape"]["dimensions"]))
        classes = int(features["label"]["classLabel"]["numClasses"])
        info = DatasetInfo(name, shape, classes, sum(shards["train"]), sum(shards["test"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"the metadata in {folder} is damaged ({error!r}); {recipe}") from error
    records = []
    for split in ("train", "test"):
        found = sorted(folder.glob(f"{name}-{split}.array_record-*"))
        if len(found) != len(shards[split]):
            raise UserError(
                f"{folder} holds {len(found)} of {len(shards[split])} array_record files of {split}; {recipe}"
            )
        records += found
    return Prepared(folder, info, records)


def _decode(prepared: Prepared) -> Arrays:
    folder, info, _ = prepared
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
            x[start:stop] = [example["image"] for example in examples]
            y[start:stop] = [example["label"] for example in examples]
        return x, y

    try:
        # Not tfds.data_source: it refuses a version that the installed tfds does not know.
        builder = tfds.builder_from_directory(folder)
        train = decode_split("train", info.train_size)
        test = decode_split("test", info.test_size)
    except Exception as error:  # readers and decoders raise RuntimeError, ValueError, OSError, ...
        raise UserError(f"cannot decode the images in {folder}: {error!r}") from error
    return Arrays(*train, *test)
