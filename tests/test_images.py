"""Image sets of the TFDS catalogue as they lie on disk: configurations, their splits, and damage."""

import itertools
import json
import sys

import numpy as np
import pytest

from sparse_jax.data import catalog, images
from sparse_jax.errors import UserError
from tests.records import write_records, write_set

for module in ("tensorflow_datasets", "array_record", "cv2"):
    pytest.importorskip(module)

CLASSES = 3


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def examples(n, shape, first=0):
    """n images that all differ, and labels 0, 1, 2, 0, ..."""
    count = int(np.prod(shape))
    x = (np.arange(n * count) + first) % 251
    return x.reshape(n, *shape).astype(np.uint8), np.arange(n) % CLASSES


SETS = {  # name -> version, shape, the splits of TFDS
    "mnist": ("3.0.1", (28, 28, 1), ("train", "test")),
    "emnist/balanced": ("3.1.0", (28, 28, 1), ("train", "test")),
    "cifar100": ("3.0.2", (32, 32, 3), ("train", "test")),
    "svhn_cropped": ("3.1.0", (32, 32, 3), ("train", "test", "extra")),
    "imagenet_resized/8x8": ("0.1.0", (8, 8, 3), ("train", "validation")),
    "imagenet_resized/16x16": ("0.1.0", (16, 16, 3), ("train", "validation")),
    "imagenet_resized/32x32": ("0.1.0", (32, 32, 3), ("train", "validation")),
    "imagenet_resized/64x64": ("0.1.0", (64, 64, 3), ("train", "validation")),
}


@pytest.mark.parametrize("name", SETS)
def test_a_set_of_the_catalogue_is_read_from_its_folder(tmp_path, name):
    version, shape, splits = SETS[name]
    parts = {split: examples(7 - i, shape, first=i) for i, split in enumerate(splits)}
    write_set(tmp_path, name, version, CLASSES, parts)
    assert catalog.describe(name, str(tmp_path)) == (name, shape, CLASSES, 7, 6)
    (x_train, y_train), (x_test, y_test) = (parts[split] for split in splits[:2])
    for _ in ("decoded", "from the cache"):
        arrays = catalog.load(name, str(tmp_path))
        assert np.array_equal(arrays.x_train, x_train)
        assert np.array_equal(arrays.x_test, x_test)
        assert arrays.y_train.tolist() == y_train.tolist()
        assert arrays.y_test.tolist() == y_test.tolist()
        assert arrays.x_train.dtype == np.uint8
    (file,) = (tmp_path / "cache/sparse_jax/data").iterdir()
    assert file.name.startswith(name.replace("/", "_"))


def test_a_set_of_many_chunks_and_files_is_read_whole(tmp_path, monkeypatch):
    """Seven examples in files of 3, 0 and 4: chunks of two end within a file, between two, and with the last one."""
    monkeypatch.setattr(images, "_CHUNK", 2)
    x, y = examples(7, (4, 5, 1))
    folder = write_set(tmp_path, "kmnist", "3.0.1", CLASSES, {"train": (x, y), "test": (x[:3], y[:3])})
    in_files(folder, x, y, (3, 0, 4))
    arrays = catalog.load("kmnist", str(tmp_path))
    assert np.array_equal(arrays.x_train, x)
    assert arrays.y_train.tolist() == y.tolist()
    assert np.array_equal(arrays.x_test, x[:3])


def in_files(folder, x, y, lengths):
    """Write the training split of kmnist anew, in as many files."""
    (folder / "kmnist-train.array_record-00000-of-00001").unlink()
    starts = np.cumsum((0, *lengths))
    for i, (start, stop) in enumerate(itertools.pairwise(starts)):
        name = f"kmnist-train.array_record-{i:05}-of-{len(lengths):05}"
        write_records(folder / name, x[start:stop], y[start:stop])
    about = json.loads((folder / "dataset_info.json").read_text())
    about["splits"][0]["shardLengths"] = [str(length) for length in lengths]
    (folder / "dataset_info.json").write_text(json.dumps(about))


def test_two_configurations_of_a_builder_are_two_sets(tmp_path):
    for i, name in enumerate(("emnist/balanced", "emnist/digits")):
        x, y = examples(6, (28, 28, 1), first=i)
        write_set(tmp_path, name, "3.1.0", CLASSES, {"train": (x, y), "test": (x, y)})
    for i, name in enumerate(("emnist/balanced", "emnist/digits")):
        assert catalog.load(name, str(tmp_path)).x_train[0, 0, 0, 0] == i


# --- damage ----------------------------------------------------------------------------------------


def small(tmp_path, train=(0, 1, 2, 0), test=(0, 1), classes=CLASSES):
    parts = {split: (examples(len(y), (4, 5, 1))[0], np.array(y)) for split, y in (("train", train), ("test", test))}
    return write_set(tmp_path, "kmnist", "3.0.1", classes, parts)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ({"train": (0, 1, 2, 3)}, "train holds label 3, outside 0..2 of its metadata"),
        ({"train": (0, 1, 2, -1)}, "train holds label -1, outside 0..2"),
        ({"test": (0, 7)}, "test holds label 7, outside 0..2"),
        ({"train": (0, 1, 1)}, "no training example of class 2, one of 3"),
        ({"train": (0, 2, 2)}, "no training example of class 1, one of 3"),
    ],
)
def test_labels_outside_the_classes_of_the_metadata_are_refused(tmp_path, labels, message):
    folder = small(tmp_path, **labels)
    with pytest.raises(UserError, match=f"{folder}: {message}"):
        catalog.load("kmnist", str(tmp_path))
    assert not (tmp_path / "cache").exists()


def test_other_metadata_are_decoded_again(tmp_path):
    folder = small(tmp_path)
    catalog.load("kmnist", str(tmp_path))
    path = folder / "features.json"
    path.write_text(path.read_text().replace('"numClasses": "3"', '"numClasses": "20"'))
    with pytest.raises(UserError, match="no training example of class 3, one of 20"):
        catalog.load("kmnist", str(tmp_path))


def test_truncated_and_altered_records_are_refused_or_harmless(tmp_path):
    folder = small(tmp_path)
    record = folder / "kmnist-train.array_record-00000-of-00001"
    whole, arrays = record.read_bytes(), catalog.load("kmnist", str(tmp_path))
    cuts = [whole[:size] for size in (0, 1, 100, len(whole) // 2, len(whole) - 1)]
    # every 64 KiB a block begins: what is used of it lies near the beginning and near the end
    places = [*range(24, 500, 50), *range(len(whole) - 500, len(whole), 50)]
    flips = [whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :] for i in places]
    refused = 0
    for damaged in cuts + flips:
        record.write_bytes(damaged)
        try:
            assert np.array_equal(catalog.load("kmnist", str(tmp_path)).x_train, arrays.x_train)
        except UserError:
            refused += 1
    assert refused > len(cuts)


def test_images_of_another_shape_than_the_metadata_say_are_refused(tmp_path):
    folder = small(tmp_path)
    for shape in ((5, 4, 1), (1, 1, 1)):
        write_records(folder / "kmnist-train.array_record-00000-of-00001", *examples(4, shape))
        with pytest.raises(UserError, match=f"cannot decode the images in {folder}"):
            catalog.load("kmnist", str(tmp_path))


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("size", [3, 5])
def test_another_number_of_records_than_the_metadata_say_is_refused(tmp_path, split, size):
    folder = small(tmp_path, test=(0, 1, 2, 0))
    record = folder / f"kmnist-{split}.array_record-00000-of-00001"
    write_records(record, *examples(size, (4, 5, 1)))
    message = f"{record} holds {size} examples, where dataset_info.json promises 4; remove that folder and prepare it"
    with pytest.raises(UserError, match=message):
        catalog.load("kmnist", str(tmp_path))


def test_a_damaged_image_is_told_with_its_file(tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_CHUNK", 2)
    x, y = examples(8, (4, 5, 1))
    folder = write_set(tmp_path, "kmnist", "3.0.1", CLASSES, {"train": (x, y), "test": (x, y)})
    in_files(folder, x, y, (3, 3, 2))
    write_records(folder / "kmnist-train.array_record-00001-of-00003", *examples(3, (5, 4, 1)))
    first, second = (rf"kmnist-train\.array_record-0000{i}-of-00003" for i in (0, 1))
    remedy = "remove that folder and prepare it with: python launch/prepare_data.py --dataset=kmnist"
    with pytest.raises(UserError, match=f"in {folder}: train in {first} or {second}: .*shape.*; {remedy}"):
        catalog.load("kmnist", str(tmp_path))
    (folder / "kmnist-train.array_record-00001-of-00003").write_bytes(bytes(100))
    with pytest.raises(UserError, match=f"in {folder}: train in {second}: .*; {remedy}"):
        catalog.load("kmnist", str(tmp_path))


def test_a_missing_library_is_no_damage(tmp_path, monkeypatch):
    small(tmp_path)
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
    with pytest.raises(UserError, match=r"reading kmnist needs: pip install .* array_record") as error:
        catalog.load("kmnist", str(tmp_path))
    assert "remove" not in str(error.value)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("features.json", '"numClasses": "3"', '"numClasses": "1"'),
        ("features.json", '"numClasses": "3"', '"numClasses": "-3"'),
        ("features.json", '["4", "5", "1"]', '["4", "5"]'),
        ("features.json", '["4", "5", "1"]', '["-1", "-1", "1"]'),
        ("features.json", '"image"', '"picture"'),
        ("features.json", '"label"', '"text"'),
        ("dataset_info.json", '["4"]', '["0"]'),
        ("dataset_info.json", '["2"]', "[]"),
        ("dataset_info.json", '["2"]', '["3", "-1"]'),
        ("dataset_info.json", '["2"]', '["two"]'),
        ("dataset_info.json", '"test"', '"validation"'),
    ],
)
def test_metadata_that_cannot_be_are_refused(tmp_path, file, old, new):
    folder = small(tmp_path)
    text = (folder / file).read_text()
    assert old in text
    (folder / file).write_text(text.replace(old, new))
    remedy = "remove that folder and prepare it with: python launch/prepare_data.py --dataset=kmnist --data_dir="
    with pytest.raises(UserError, match=f"the metadata in {folder} are damaged \\({file}: .*; {remedy}"):
        catalog.describe("kmnist", str(tmp_path))


def test_a_set_in_another_format_is_told_of_it(tmp_path):
    folder = small(tmp_path)
    for path in folder.glob("*.array_record-*"):
        path.rename(path.with_name(path.name.replace("array_record", "tfrecord")))
    with pytest.raises(UserError, match=f"{folder} holds 0 of 1 array_record files of train; remove that folder"):
        catalog.describe("kmnist", str(tmp_path))
    assert json.loads((folder / "dataset_info.json").read_text())["name"] == "kmnist"
