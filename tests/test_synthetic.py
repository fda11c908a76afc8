"""The drawn data sets: always the same draw, as described, and as hard as they say."""

import hashlib

import numpy as np
import pytest

from sparse_jax.data import catalog
from sparse_jax.data.arrays import info_of

SETS = ("synthetic", "separable", "two_spirals", "madelon_like")
ARRAYS = {name: catalog.load(name, "") for name in SETS}


def accuracy(model, arrays):
    return model.fit(arrays.x_train, arrays.y_train).score(arrays.x_test, arrays.y_test)


@pytest.mark.parametrize("name", SETS)
def test_a_set_is_as_described_and_fixed(name):
    arrays, again = ARRAYS[name], catalog.load(name, "ignored")
    assert info_of(name, arrays) == catalog.describe(name, "ignored")
    assert all(np.array_equal(a, b) for a, b in zip(arrays, again, strict=True))
    assert [array.dtype for array in arrays] == [np.float32, np.int32] * 2
    for y in (arrays.y_train, arrays.y_test):
        assert np.ptp(np.bincount(y)) <= 0.02 * y.size
    assert all(np.isfinite(x).all() for x in (arrays.x_train, arrays.x_test))


@pytest.mark.parametrize(
    ("name", "first", "label"),
    [
        ("separable", [-0.1447, 1.3834, -0.7475], 0),
        ("two_spirals", [-1.2569, 2.2713], 0),
        ("madelon_like", [0.9519, 0.0646, -0.6168], 1),
    ],
)
def test_the_draw_is_the_published_one(name, first, label):
    """Numbers that nothing explains: they pin the draw, so that results on it can be repeated."""
    assert ARRAYS[name].x_train[0, : len(first)] == pytest.approx(first, abs=1e-3)
    assert ARRAYS[name].y_train[0] == label


def test_synthetic_is_bit_for_bit_the_published_one():
    """Sums and products of what the generator gives: the same on every machine, so that its bits can be held."""
    raw = b"".join(array.tobytes() for array in ARRAYS["synthetic"])
    assert hashlib.blake2b(raw, digest_size=8).hexdigest() == "377ea47c42c43c57"


def test_synthetic_is_neither_trivial_nor_noise():
    x_train, y_train, x_test, y_test = ARRAYS["synthetic"]
    centres = np.stack([x_train[y_train == c].mean(0) for c in range(10)])
    nearest = np.square(x_test[:, None] - centres).sum(-1).argmin(1)
    assert 0.85 < np.mean(nearest == y_test) < 0.99


def test_separable_has_its_margin_about_one_plane():
    """The classes are reflections of each other, so that their means differ along the normal, but for the noise."""
    svm = pytest.importorskip("sklearn.svm")
    x_train, y_train, x_test, y_test = ARRAYS["separable"]
    x, s = np.concatenate([x_train, x_test]), 2 * np.concatenate([y_train, y_test]) - 1
    hard = svm.SVC(kernel="linear", C=1e6).fit(x, s)
    assert (hard.predict(x) == s).all()
    # the widest margin of all planes is at least that of the plane it was drawn with, and not much more
    assert 0.5 - 1e-3 < 1 / np.linalg.norm(hard.coef_) < 0.6


def test_two_spirals_need_more_than_a_line():
    neighbors, linear = pytest.importorskip("sklearn.neighbors"), pytest.importorskip("sklearn.linear_model")
    arrays = ARRAYS["two_spirals"]
    assert accuracy(neighbors.KNeighborsClassifier(1), arrays) > 0.99
    assert accuracy(linear.LogisticRegression(), arrays) < 0.7
    radius = np.linalg.norm(arrays.x_train, axis=1)
    assert 0 < radius.min() < 0.7
    assert 6.3 < radius.max() < 7


def test_madelon_like_hides_twenty_features_among_probes():
    feature_selection = pytest.importorskip("sklearn.feature_selection")
    neighbors, linear = pytest.importorskip("sklearn.neighbors"), pytest.importorskip("sklearn.linear_model")
    arrays = ARRAYS["madelon_like"]
    x = arrays.x_train
    # the 20 useful features span 5 dimensions: each depends on the others, a probe on nothing
    correlation = np.abs(np.corrcoef(x.T) - np.eye(500)).max(0)
    useful = np.flatnonzero(correlation > 0.2)
    assert useful.size == 20
    assert np.linalg.matrix_rank(x[:, useful], tol=1e-2) == 5
    assert feature_selection.f_classif(x[:, useful], arrays.y_train)[0].max() > 50
    seen = arrays._replace(x_train=x[:, useful], x_test=arrays.x_test[:, useful])
    assert accuracy(neighbors.KNeighborsClassifier(3), seen) > 0.8
    assert accuracy(neighbors.KNeighborsClassifier(3), arrays) < 0.75
    assert 0.7 < accuracy(linear.LogisticRegression(C=0.01), arrays) < 0.8
