"""Laws of the data sets, their splits and their normalisation."""

import hashlib
import io
import json
import os
import pickle
import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import hypothesis
import hypothesis.strategies as st
import jax
import numpy as np
import pytest

from sparse_jax.data import cache, catalog, images, normalization, splits
from sparse_jax.data.arrays import Arrays, info_of
from sparse_jax.errors import UserError

SHARED = Path(__file__).parents[2] / "shared" / "data"
needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason=f"no benchmark data at {SHARED}")
few = hypothesis.settings(max_examples=50, deadline=None)


def tiny(classes=3, n=12):
    """Arrays sorted by class, whose examples all differ so that a row names its origin."""
    x = np.arange(2 * n * 2, dtype=np.float32).reshape(2 * n, 2)
    y = (np.arange(n) * classes // n).astype(np.int32)
    return Arrays(x[:n], y, x[n:], y)


def same(a, b):
    return all(np.array_equal(i, j) and i.dtype == j.dtype for i, j in zip(a, b, strict=True))


# --- the catalogue ---------------------------------------------------------------------------------


def test_the_catalogue_needs_no_jax():
    heavy = "{'jax', 'sklearn', 'tensorflow_datasets'}"
    program = f"import sys, sparse_jax.data.catalog, sparse_jax.data.splits; assert not {heavy} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=Path(__file__).parents[1])


def test_digits_are_as_described_and_fixed():
    arrays = catalog.load("digits", "")
    assert info_of("digits", arrays) == catalog.describe("digits", "")
    assert same(arrays, catalog.load("digits", ""))
    assert arrays.x_train.dtype == np.uint8
    for y in (arrays.y_train, arrays.y_test):
        assert y.dtype == np.int32
        assert np.ptp(np.bincount(y, minlength=10)) <= 0.2 * y.size / 10


def test_digits_are_partitioned():
    datasets = pytest.importorskip("sklearn.datasets")
    arrays, (images_, labels) = catalog.load("digits", ""), datasets.load_digits(return_X_y=True)
    x = np.concatenate([arrays.x_train, arrays.x_test]).reshape(-1, 64)
    y = np.concatenate([arrays.y_train, arrays.y_test])
    ours, theirs = np.column_stack([x, y]), np.column_stack([images_, labels])
    assert np.array_equal(ours[np.lexsort(ours.T)], theirs[np.lexsort(theirs.T)])


def test_unknown_name_suggests_and_lists():
    with pytest.raises(UserError, match=r"unknown dataset 'minst'.*'mnist'.*lung_small.*\.npz or \.csv"):
        catalog.describe("minst", "")


def test_a_name_without_its_configuration_suggests_one():
    with pytest.raises(UserError, match="Did you mean 'emnist/balanced'"):
        catalog.describe("emnist", "")


@needs_shared
def test_real_sets_are_found():
    info = catalog.describe("mnist", str(SHARED / "tfds"))
    assert info == catalog.DatasetInfo("mnist", (28, 28, 1), 10, 60_000, 10_000)
    for folder in (SHARED, SHARED / "tabular", SHARED / "tfds"):  # in it, below it, beside it
        assert catalog.describe("madelon", str(folder)) == ("madelon", (500,), 2, 2_000, 600)
    x_train = catalog.load("madelon", str(SHARED)).x_train
    assert (x_train.min(), x_train.max()) == (0, 999)


@needs_shared
@pytest.mark.slow
def test_mnist_is_decoded_once(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    arrays = catalog.load("mnist", str(SHARED / "tfds"))
    monkeypatch.delattr(images, "_decode")
    assert same(arrays, catalog.load("mnist", str(SHARED / "tfds")))
    # Class counts, mean and deviation of the published training images.
    published = [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert np.bincount(arrays.y_train).tolist() == published
    assert arrays.x_train.mean() / 255 == pytest.approx(0.1307, abs=5e-5)
    assert arrays.x_train.std() / 255 == pytest.approx(0.3081, abs=5e-5)


# --- npz archives ----------------------------------------------------------------------------------


def save(folder, **changes):
    path = folder / "set.npz"
    arrays = tiny()._asdict() | changes
    np.savez(path, **{key: array for key, array in arrays.items() if array is not None})
    return str(path)


def with_value(array, value):
    array = array.copy()
    array.flat[-1] = value
    return array


def test_npz_round_trip(tmp_path):
    expected = tiny()
    path = save(
        tmp_path,
        x_train=expected.x_train.astype(np.float16),
        x_test=expected.x_test.astype(np.float64),
        y_train=expected.y_train.astype(np.uint8),
    )
    assert same(catalog.load(path, "ignored"), expected)
    assert catalog.describe(path, "ignored") == (path, (2,), 3, 12, 12)


@pytest.mark.parametrize(
    ("shape", "given", "becomes"),
    [
        ((2, 1, 1), np.uint8, np.uint8),  # images, and no others
        ((2, 1), np.uint8, np.float32),
        ((2,), np.uint8, np.float32),
        ((1, 2, 1, 1), np.uint8, np.float32),
        ((2, 1, 1), np.int64, np.float32),
        ((2, 1, 1), bool, np.float32),
        ((2, 1, 1), np.float64, np.float32),
    ],
)
def test_images_stay_integers_and_all_else_becomes_float(tmp_path, shape, given, becomes):
    parts = {split: getattr(tiny(), split).reshape(12, *shape).astype(given) for split in ("x_train", "x_test")}
    arrays = catalog.load(save(tmp_path, **parts), "")
    for split, x in parts.items():
        assert getattr(arrays, split).dtype == becomes
        assert np.array_equal(getattr(arrays, split), x)


def test_the_largest_input_that_is_taken_can_be_normalised(tmp_path):
    x = np.full((12, 2), 1e18, np.float32)
    x[::2] = -1e18
    arrays = catalog.load(save(tmp_path, x_train=x), "")
    for name in normalization.NORMALIZATIONS:
        z = normalization.make_apply(name)(normalization.fit(name, arrays.x_train), arrays.x_train)
        assert np.isfinite(z).all()


TINY = tiny()
BAD = {
    "missing key": ({"x_test": None}, "lacks x_test"),
    "nan": ({"x_test": with_value(TINY.x_test, np.nan)}, "x_test holds NaN"),
    "inf": ({"x_train": with_value(TINY.x_train, np.inf)}, "x_train holds NaN or inf"),
    "beyond float32": ({"x_train": TINY.x_train.astype(float) * 1e300}, "x_train holds NaN or inf"),
    "too large to square": ({"x_test": with_value(TINY.x_test, -2e18)}, r"x_test holds -2e\+18, beyond ±1e\+18"),
    "two scales": ({"x_train": TINY.x_train.astype(np.uint8)}, "x_train is uint8 but x_test float32: both must be int"),
    "two scales, train a float": ({"x_test": TINY.x_test.astype(int)}, "x_train is float32 but x_test int64"),
    "text": ({"x_train": TINY.x_train.astype(str)}, "x_train must be numbers"),
    "pickle": ({"x_train": TINY.x_train.astype(object)}, "cannot be read"),
    "flat": ({"x_train": TINY.y_train}, r"x_train must be numbers\[n, features"),
    "real labels": ({"y_train": TINY.y_train / 2}, "y_train must be integers"),
    "one-hot labels": ({"y_test": np.eye(12, dtype=int)}, r"y_test must be integers\[n\]"),
    "labels from 1": ({"y_train": TINY.y_train + 1}, r"without a gap; found \[1, 2, 3\]"),
    "negative label": ({"y_train": TINY.y_train - 1}, "without a gap"),
    "gap": ({"y_train": TINY.y_train * 2}, r"found \[0, 2, 4\]"),
    "one class": ({"y_train": TINY.y_train * 0}, "without a gap"),
    "stranger": ({"y_test": with_value(TINY.y_test, 3)}, "y_test holds label 3"),
    "lengths": ({"y_train": TINY.y_train[1:]}, "x_train has 12 examples but y_train has 11"),
    "empty": ({"x_test": TINY.x_test[:0], "y_test": TINY.y_test[:0]}, "x_test is empty"),
    "no features": ({"x_train": TINY.x_train[:, :0]}, "x_train is empty"),
    "widths": ({"x_test": TINY.x_test[:, :1]}, r"x_train has shape \(2,\), one of x_test \(1,\)"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_a_bad_npz_is_refused_in_one_line(tmp_path, changes, message):
    path = save(tmp_path, **changes)
    with pytest.raises(UserError, match=message) as error:
        catalog.load(path, "")
    assert path in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.filterwarnings("error")
def test_a_damaged_npz_is_refused_or_harmless(tmp_path):
    path = Path(save(tmp_path))
    whole, arrays = path.read_bytes(), catalog.load(str(path), "")
    flips = [whole[:i] + bytes([whole[i] ^ 0x10]) + whole[i + 1 :] for i in range(0, len(whole), 7)]
    cuts = [whole[:i] for i in range(0, len(whole), 97)]
    refused = 0
    for damaged in flips + cuts:
        path.write_bytes(damaged)
        try:
            assert same(catalog.load(str(path), ""), arrays)
        except UserError:
            refused += 1
    assert refused > len(cuts)


@pytest.mark.parametrize(("name", "data_dir"), [("colon", "nowhere"), ("nowhere/set.npz", "")])
def test_an_absent_table_names_the_place(name, data_dir):
    with pytest.raises(UserError, match=r"no data set at nowhere/.*npz.*numpy\.savez"):
        catalog.describe(name, data_dir)


NO_ARCHIVE = {
    "text": b"x_train",
    "nothing": b"",
    "a pickle": pickle.dumps([1, 2]),
    "cut": None,
    "one array": None,
}


@pytest.mark.parametrize("content", NO_ARCHIVE)
def test_what_is_no_archive_is_told_so(tmp_path, content):
    path = Path(save(tmp_path))
    if content == "one array":
        with path.open("wb") as file:
            np.save(file, np.arange(3))
    else:
        path.write_bytes(path.read_bytes()[:200] if content == "cut" else NO_ARCHIVE[content])
    with pytest.raises(UserError, match=f"{path} is no npz archive, or not the whole of one; save it .*numpy.savez"):
        catalog.load(str(path), "")
    path.unlink()
    path.mkdir()
    with pytest.raises(UserError, match=f"{path} is a folder, no npz archive"):
        catalog.load(str(path), "")


# --- TFDS folders and their cache ------------------------------------------------------------------


def prepare(root, version="3.0.1", train=12):
    """A version folder whose records are not images: only its metadata can be read."""
    folder = root / "mnist" / version
    folder.mkdir(parents=True)
    counts = {"train": train, "test": 12}
    about = {"splits": [{"name": split, "shardLengths": [str(n)]} for split, n in counts.items()]}
    image = {"image": {"dtype": "uint8", "shape": {"dimensions": ["2", "1", "1"]}}}
    features = {"image": image, "label": {"classLabel": {"numClasses": "3"}}}
    (folder / "dataset_info.json").write_text(json.dumps(about))
    (folder / "features.json").write_text(json.dumps({"featuresDict": {"features": features}}))
    for split in counts:
        (folder / f"mnist-{split}.array_record-00000-of-00001").write_bytes(bytes(100))
    return folder


@pytest.fixture
def decoded(tmp_path, monkeypatch):
    """Images without tfds: the list of the folders decoded so far."""
    folders = []
    table = tiny()
    pictures = Arrays(
        table.x_train.astype(np.uint8)[..., None, None],
        table.y_train,
        table.x_test.astype(np.uint8)[..., None, None],
        table.y_test,
    )
    monkeypatch.setattr(images, "_decode", lambda prepared: folders.append(prepared.folder) or pictures)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return folders


@pytest.mark.filterwarnings("error")
def test_images_are_decoded_once_per_source(tmp_path, decoded):
    folder = prepare(tmp_path)
    first = catalog.load("mnist", str(tmp_path))
    assert same(first, catalog.load("mnist", str(tmp_path)))
    assert decoded == [folder]
    record = next(folder.glob("*train.array_record*"))
    os.utime(record, ns=(0, 0))
    catalog.load("mnist", str(tmp_path))
    record.write_bytes(bytes(101))
    os.utime(record, ns=(0, 0))
    catalog.load("mnist", str(tmp_path))
    assert len(decoded) == 3
    assert all(path.suffix == ".npy" for path in (tmp_path / "cache/sparse_jax/data").iterdir())


@pytest.mark.parametrize("damage", [lambda b: b[:-1], lambda b: b"", lambda b: b[:200] + b"?" + b[201:]])
def test_a_damaged_cache_is_decoded_again(tmp_path, decoded, damage):
    prepare(tmp_path)
    first = catalog.load("mnist", str(tmp_path))
    (file,) = (tmp_path / "cache/sparse_jax/data").iterdir()
    file.write_bytes(damage(file.read_bytes()))
    with pytest.warns(UserWarning, match="damaged"):
        assert same(first, catalog.load("mnist", str(tmp_path)))
    assert same(first, catalog.load("mnist", str(tmp_path)))
    assert len(decoded) == 2


@pytest.mark.parametrize("count", [3, 5])
def test_a_cache_of_another_number_of_arrays_is_decoded_again(tmp_path, decoded, count):
    prepare(tmp_path)
    first = catalog.load("mnist", str(tmp_path))
    (file,) = (tmp_path / "cache/sparse_jax/data").iterdir()
    cache.write(file, [*first, *first][:count])
    with pytest.warns(UserWarning, match="damaged"):
        assert same(first, catalog.load("mnist", str(tmp_path)))
    assert same(first, catalog.load("mnist", str(tmp_path)))
    assert len(decoded) == 2


@pytest.mark.parametrize("body", [b"", b"no array", pickle.dumps([1])])
def test_a_cache_of_no_arrays_is_damaged(tmp_path, body):
    path = tmp_path / "file.npy"
    path.write_bytes(body + hashlib.blake2b(body).digest())
    with pytest.warns(UserWarning, match="damaged"):
        assert cache.read(path, 1) is None


def test_a_cache_file_is_read_and_written_without_copies(tmp_path):
    """Views of the bytes that were read once: of any dtype and order, at whatever place in the file they begin."""
    rng = np.random.default_rng(0)
    arrays = [rng.integers(0, 255, (101, 33, 3, 1)).astype(np.uint8), np.arange(7, dtype=np.int32), rng.normal(size=())]
    arrays.append(np.asfortranarray(rng.normal(size=(50, 40))))
    path = tmp_path / "file.npy"
    cache.write(path, arrays)
    stored = io.BytesIO(path.read_bytes())
    assert all(np.array_equal(array, np.load(stored)) for array in arrays)  # as np.save has it
    read = cache.read(path, 4)
    assert same(read, arrays)
    assert not any(array.flags.owndata or array.flags.writeable for array in read)
    large = np.zeros(40_000_000, np.uint8)
    for act in (lambda: cache.write(path, [large]), lambda: cache.read(path, 1)):
        tracemalloc.start()
        act()
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 1.1 * large.nbytes


def test_an_unwritable_cache_warns_once(tmp_path, decoded):
    prepare(tmp_path)
    (tmp_path / "cache").write_text("a file where the folder should be")
    with pytest.warns(UserWarning, match="cannot cache") as warnings:
        catalog.load("mnist", str(tmp_path))
    assert len(warnings) == 1


def test_a_failed_write_leaves_nothing_behind(tmp_path, decoded):
    prepare(tmp_path)
    catalog.load("mnist", str(tmp_path))
    (file,) = (tmp_path / "cache/sparse_jax/data").iterdir()
    file.unlink()
    file.mkdir()
    with pytest.warns(UserWarning, match="cannot cache"):
        catalog.load("mnist", str(tmp_path))
    assert list(file.parent.iterdir()) == [file]


def test_the_highest_version_is_taken(tmp_path):
    for version, train in (("9.0.0", 9), ("10.0.0", 10), ("11.0.0.incomplete", 11)):
        prepare(tmp_path, version, train)
    assert catalog.describe("mnist", str(tmp_path)).train_size == 10


def test_an_absent_image_set_names_folder_and_command(tmp_path):
    for name in ("mnist", "imagenet_resized/16x16"):
        command = f"python launch/prepare_data.py --dataset={name} --data_dir={tmp_path}"
        with pytest.raises(UserError, match=f"in {tmp_path / name}; prepare it with: {command}$"):
            catalog.describe(name, str(tmp_path))


@pytest.mark.parametrize("name", ["dataset_info.json", "features.json", "mnist-test.array_record-00000-of-00001"])
def test_an_incomplete_image_set_is_refused(tmp_path, name):
    path = prepare(tmp_path) / name
    whole = path.read_bytes()
    path.unlink()
    named = name if path.suffix == ".json" else "0 of 1 array_record files of test"
    with pytest.raises(UserError, match=f"{path.parent}.*{named}"):
        catalog.describe("mnist", str(tmp_path))
    if path.suffix == ".json":
        for text in (whole[:-1], b"{}", b"[]", b"\xff"):
            path.write_bytes(text)
            with pytest.raises(UserError, match=rf"metadata .* damaged \({name}: "):
                catalog.describe("mnist", str(tmp_path))


def test_damaged_records_are_refused(tmp_path, monkeypatch):
    pytest.importorskip("tensorflow_datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    folder = prepare(tmp_path)
    remedy = "remove that folder and prepare it with: python launch/prepare_data.py --dataset=mnist"
    with pytest.raises(UserError, match=f"cannot decode the images in {folder}: .*; {remedy}"):
        catalog.load("mnist", str(tmp_path))
    assert not (tmp_path / "cache").exists()


# --- splits ----------------------------------------------------------------------------------------

labels = st.lists(st.integers(0, 6), min_size=1, max_size=60).map(np.array)


@few
@hypothesis.given(labels, st.data())
def test_subset_is_exact_and_stratified(y, data):
    size = data.draw(st.integers(1, len(y)))
    index = splits.subset(y, size, salt=5)
    assert index.size == size
    assert (np.diff(index) > 0).all()
    assert index[0] >= 0
    assert index[-1] < len(y)
    assert np.array_equal(index, splits.subset(y, size, salt=5))
    _, label = np.unique(y, return_inverse=True)
    count = np.bincount(label)
    quota, share = np.bincount(label[index], minlength=count.size), size * count / len(y)
    assert (quota > 0).sum() == min(size, count.size)
    if (share >= 1).all():
        assert (abs(quota - share) < 1).all()
    larger = np.subtract.outer(count, count) > 0
    assert (np.subtract.outer(quota, quota)[larger] >= 0).all()


@pytest.mark.parametrize(
    ("count", "size", "quota"),
    [
        ([50, 30, 13, 7], 10, [5, 3, 1, 1]),  # shares 5, 3, 1.3, .7
        ([50, 30, 13, 7], 5, [2, 1, 1, 1]),  # shares 2.5, 1.5, .65, .35: floors, at least one
        ([50, 30, 13, 7], 3, [1, 1, 1, 0]),  # the three largest
        ([97, 1, 1, 1], 5, [2, 1, 1, 1]),  # share 4.85: the largest gives way to the small
        ([50, 51, 1, 1, 1], 10, [3, 4, 1, 1, 1]),  # shares 4.8, 4.9: the smaller of the two does
        ([50, 30, 13, 7], 0, [50, 30, 13, 7]),
    ],
)
def test_largest_remainder_by_hand(count, size, quota):
    y = np.repeat(np.arange(len(count)), count)
    assert np.bincount(y[splits.subset(y, size, salt=0)], minlength=len(count)).tolist() == quota


def test_subset_favours_no_example_and_every_salt_differs():
    chosen = np.zeros(20)
    for salt in range(1000):
        chosen[splits.subset(np.arange(20) % 2, 6, salt)] += 1
    assert chosen.sum() == 6000
    assert (abs(chosen - 300) < 5 * np.sqrt(1000 * 0.3 * 0.7)).all()  # binomial(1000, .3), 5 deviations


@few
@hypothesis.given(labels, st.floats(0, 1))
def test_validation_partitions(y, fraction):
    train, held_out = splits.validation(y, fraction)
    count = np.bincount(y)
    assert held_out.size == min(round(fraction * len(y)), len(y) - (count > 0).sum())
    assert (np.bincount(y[train], minlength=count.size)[count > 0] >= 1).all()
    assert np.array_equal(np.sort(np.concatenate([train, held_out])), np.arange(len(y)))
    assert (np.diff(train) > 0).all()
    exact = fraction * np.bincount(y)
    if (exact[count > 0] >= 2).all() and (count - exact)[count > 0].min() >= 2:
        assert (abs(np.bincount(y[held_out], minlength=exact.size) - exact) < 2).all()


@pytest.mark.parametrize(
    ("count", "size", "held_out"),
    [
        ([100, 2], 10, [9, 1]),  # shares 9.8, .2
        ([81, 1], 8, [8, 0]),  # shares 7.9, .1: a lone example stays
        ([50, 30, 1, 1], 8, [5, 3, 0, 0]),  # the two quotas of 1 go where 4.88 and 2.93 are missed most
        ([3, 2, 2], 4, [2, 1, 1]),
        ([3, 2, 2], 7, [2, 1, 1]),  # not more than leaves one of each
        ([1, 1], 1, [0, 0]),
    ],
)
def test_a_class_keeps_an_example(count, size, held_out):
    y = np.repeat(np.arange(len(count)), count)
    train, out = splits.hold_out(y, size)
    assert np.bincount(y[out], minlength=len(count)).tolist() == held_out
    assert np.array_equal(np.sort(np.concatenate([train, out])), np.arange(len(y)))


def test_held_out_examples_are_the_published_ones():
    """They decide every result on these sets; the digests are from before a class was sure to keep an example."""
    for labels, digest in ((np.arange(1_000) % 10, "048e"), (np.repeat([0, 1, 2], [500, 300, 13]), "3e6d")):
        held_out = splits.validation(labels, 0.1)[1].astype(np.int64)
        assert hashlib.blake2b(held_out.tobytes(), digest_size=2).hexdigest() == digest


def test_a_stack_of_more_than_one_chunk_is_that_of_the_arrays(monkeypatch):
    arrays = tiny()
    whole = splits.split(arrays, train_size=0, test_size=7, validation_fraction=0.25)
    for rows in (1, 5, 12):
        monkeypatch.setattr(splits, "_ROWS", rows)
        assert same(splits.split(arrays, train_size=0, test_size=7, validation_fraction=0.25)[:2], whole[:2])


@few
@hypothesis.given(st.integers(0, 12), st.integers(0, 12), st.floats(0, 0.95))
def test_split_agrees_with_sizes(train_size, test_size, fraction):
    arrays = tiny()
    arguments = {"train_size": train_size, "test_size": test_size, "validation_fraction": fraction}
    try:
        sizes = splits.sizes(info_of("tiny", arrays), **arguments)
    except UserError:
        with pytest.raises(UserError):
            splits.split(arrays, **arguments)
        return
    result = splits.split(arrays, **arguments)
    assert (result.train, result.validation, result.test) == sizes
    assert len(result.x) == len(result.y) == sum(sizes)
    assert sizes[0] + sizes[1] == (train_size or 12)
    assert sizes[2] == (test_size or 12)
    origin = result.x[:, 0].astype(int) // 2  # the row of `tiny` before it was cut in two
    assert np.array_equal(result.y, origin % 12 // 4)
    cut = sizes[0] + sizes[1]
    assert np.unique(origin).size == origin.size
    assert (origin[:cut] < 12).all()
    assert (origin[cut:] >= 12).all()
    whole = splits.split(arrays, **arguments | {"validation_fraction": 0})
    assert np.array_equal(np.sort(result.x[:cut, 0]), whole.x[:cut, 0])  # a slice of the same subset
    assert np.array_equal(result.x[cut:], whole.x[cut:])
    stratified = arrays.y_train[splits.subset(arrays.y_train, train_size, salt=9)]
    assert np.array_equal(np.sort(whole.y[:cut]), np.sort(stratified))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((99_999, 0, 0.1), "train_size 99999 is larger than the 60,000 training examples of mnist"),
        ((0, 10_001, 0.1), "test_size 10001 is larger than the 10,000 test examples of mnist"),
        ((-1, 0, 0.1), "train_size -1 is negative"),
        ((0, -1, 0.1), "test_size -1 is negative"),
        ((0, 0, 1.0), r"1.0 is outside \[0, 1\)"),
        ((0, 0, -0.1), "outside"),
        ((0, 0, float("nan")), "outside"),
        ((5, 0, 0.1), r"--train_size=5 and .*=0.1 leave 5 of 5 .* 10 classes: --train_size=11 is the least"),
        ((9, 0, 0), r"leave 9 of 9 training examples of mnist to train on.*--train_size=10 is the least"),
        ((5, 0, 0.01), "--train_size=51 is the least"),  # of 50 it would hold out none
        ((10, 0, 0.01), r"--validation_fraction=0.01 of 10 training examples of mnist holds out none: use 0"),
        ((50, 0, 0.9), r"leave 5 of 50 .*: --train_size=96 is the least"),  # round(85.5) is 86
        ((0, 0, 0.9999), "leave 6 of 60,000 training examples .*: at most 59,990 can be held out"),
    ],
)
def test_impossible_sizes_are_refused(arguments, message):
    with pytest.raises(UserError, match=message):
        splits.sizes(catalog.DatasetInfo("mnist", (28, 28, 1), 10, 60_000, 10_000), *arguments)


@few
@hypothesis.given(st.integers(2, 30), st.integers(0, 2_000), st.floats(0, 0.999))
def test_the_least_train_size_named_is_the_least(classes, train_size, fraction):
    info = catalog.DatasetInfo("set", (1,), classes, 2_000, 10)
    try:
        splits.sizes(info, train_size, 0, fraction)
        return
    except UserError as error:
        found = re.search(r"train_size=(\d+) is the least", str(error))
    hypothesis.assume(found)
    least = int(found[1])
    assert splits.sizes(info, least, 0, fraction)[0] >= classes
    with pytest.raises(UserError):
        splits.sizes(info, least - 1, 0, fraction)


# --- normalisation ---------------------------------------------------------------------------------


APPLY = {name: jax.jit(normalization.make_apply(name)) for name in normalization.NORMALIZATIONS}


def normalized(name, x_train, x):
    fitted = normalization.fit(name, x_train)
    assert all(field.dtype == np.float32 for field in fitted)
    z = APPLY[name](fitted, x)
    assert (z.shape, z.dtype) == (x.shape, np.float32)
    return np.asarray(z, np.float64)


def pictures(dtype=np.uint8, n=5000):
    """More examples than one chunk of the fit; pixel 0 is constant, the others and the two channels differ in scale."""
    rng = np.random.default_rng(0)
    x = rng.integers(3, 17, (n, 3, 2, 2)) * np.array([1, 7, 2, 8, 3, 9, 4, 10, 5, 11, 6, 12]).reshape(3, 2, 2)
    x[:, 0, 0] = 7
    return x.astype(dtype) / np.asarray(10, dtype) if dtype is np.float32 else x.astype(dtype)


CONSTANT = (slice(None), 0, 0)
LAWS = {
    "none": lambda z, x: np.array_equal(z, x),
    "unit": lambda z, x: np.allclose((z.min(), z.max()), (0, 1), atol=1e-6),
    "symmetric": lambda z, x: np.allclose((z.min(), z.max()), (-1, 1), atol=1e-6),
    "zscore": lambda z, x: (
        np.allclose(z.mean(0), 0, atol=1e-5)
        and np.allclose(z.std(0)[x.std(0) > 1e-5], 1, atol=1e-5)
        and (z[CONSTANT] == 0).all()
    ),
    "channel_zscore": lambda z, x: (
        np.allclose(z.mean((0, 1, 2)), 0, atol=1e-5) and np.allclose(z.std((0, 1, 2)), 1, atol=1e-5)
    ),
    "global_zscore": lambda z, x: np.allclose((z.mean(), z.std()), (0, 1), atol=1e-5),
    "per_sample": lambda z, x: (
        np.allclose(z.mean((1, 2, 3)), 0, atol=1e-5) and np.allclose(z.std((1, 2, 3)), 1, atol=1e-5)
    ),
    "l2": lambda z, x: np.allclose(np.square(z).sum((1, 2, 3)), 1, atol=1e-5),
}


def test_every_normalization_has_a_law():
    assert list(LAWS) == list(normalization.NORMALIZATIONS)


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", LAWS)
def test_normalization_does_what_its_name_says(name, dtype):
    x = pictures(dtype)
    z = normalized(name, x, x)
    x = x.astype(np.float64)
    assert LAWS[name](z, x)
    # of a feature, of a channel, or within a sample
    affine = {"zscore": (slice(None), 2, 1, 0), "channel_zscore": (..., 1)}.get(name, 0)
    assert np.corrcoef(z[affine].ravel(), x[affine].ravel())[0, 1] == pytest.approx(1)


def test_channel_zscore_is_zscore_where_each_feature_is_a_channel_and_global_where_there_is_one():
    vectors = pictures(np.float32).reshape(-1, 12)
    assert np.array_equal(normalized("channel_zscore", vectors, vectors), normalized("zscore", vectors, vectors))
    grey = pictures()[..., :1]
    assert np.allclose(normalized("channel_zscore", grey, grey), normalized("global_zscore", grey, grey), atol=1e-6)


def test_channel_zscore_by_hand():
    """Channels 0 and 1 of two images of two pixels: means 2 and 5, deviations 1 and √((9 + 1 + 1 + 9) / 4) = √5."""
    x = np.array([[[[1, 2], [3, 4]]], [[[1, 6], [3, 8]]]], np.uint8)
    z = normalized("channel_zscore", x, x)
    assert np.allclose(z[..., 0], [[[-1, 1]], [[-1, 1]]])
    assert np.allclose(z[..., 1] * 5**0.5, [[[-3, -1]], [[1, 3]]])


@pytest.mark.parametrize("name", LAWS)
def test_statistics_come_from_the_training_part_and_samples_do_not_mix(name):
    x = pictures()
    z = normalized(name, x[:4000], x)
    np.testing.assert_allclose(z[4000:], normalized(name, x[:4000], x[4000:]), rtol=1e-5, atol=1e-6)
    shifted = x.copy()
    shifted[4000:] += 50
    assert np.array_equal(z[:4000], normalized(name, x[:4000], shifted)[:4000])


@pytest.mark.parametrize("value", [0, 1, 0.1, 1e30])
@pytest.mark.parametrize("name", LAWS)
def test_constant_data_stay_finite(name, value):
    x = np.full((100, 3), value, np.float32)
    z = normalized(name, x, x)
    if name == "none":
        assert (z == x).all()
    elif name == "l2" and value:
        assert value > 1e18 or np.allclose(np.square(z).sum(1), 1)
    else:
        assert (z == 0).all()


@pytest.mark.parametrize("name", LAWS)
def test_affine_normalizations_have_an_inverse_and_the_others_say_so(name):
    x = pictures(np.float32)
    fitted = normalization.fit(name, x)
    if name in ("per_sample", "l2"):
        with pytest.raises(UserError, match=f"'{name}' has no inverse"):
            normalization.inverse(name, fitted, x)
    else:
        z = APPLY[name](fitted, x)
        assert np.allclose(normalization.inverse(name, fitted, z), x, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("use", [lambda n: normalization.fit(n, pictures()), normalization.make_apply])
def test_an_unknown_normalization_is_refused(use):
    with pytest.raises(UserError, match=r"unknown normalization 'z_score'.*'zscore'"):
        use("z_score")
