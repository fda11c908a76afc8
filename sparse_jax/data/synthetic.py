"""Data sets that are drawn: each always the same draw, of known sizes, without a file."""

import numpy as np

from sparse_jax.data.arrays import Arrays, DatasetInfo

_TRAIN, _TEST = 2_000, 500  # of all but madelon_like

_CLUSTERS = 10
_CLUSTER_FEATURES = 64
_CENTRE_STD = 0.45  # against unit noise: nearest true centre 96 %, an MLP about 93 % on test

_PLANE_FEATURES = 20
_MARGIN = 0.5  # against unit noise along the normal

_SPIRAL_NOISE = 0.1  # where neighbouring arms lie 1 apart

_MADELON_FEATURES = 500
_MADELON_TRAIN, _MADELON_TEST = 2_000, 600


def describe_synthetic(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (_CLUSTER_FEATURES,), _CLUSTERS, _TRAIN, _TEST)


def load_synthetic(name: str, data_dir: str) -> Arrays:
    """Overlapping Gaussian clusters: x = centre[y] + noise, centre ~ N(0, 0.45²), noise ~ N(0, 1).

    Always the draw of `default_rng(0)`: float32[n, 64], every tenth example of the same class.
    """
    rng = np.random.default_rng(0)
    centre = rng.normal(scale=_CENTRE_STD, size=(_CLUSTERS, _CLUSTER_FEATURES))
    y = np.arange(_TRAIN + _TEST, dtype=np.int32) % _CLUSTERS
    return _parted(centre[y] + rng.normal(size=(y.size, _CLUSTER_FEATURES)), y, _TRAIN)


def describe_separable(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (_PLANE_FEATURES,), 2, _TRAIN, _TEST)


def load_separable(name: str, data_dir: str) -> Arrays:
    """Two classes on the two sides of a hyperplane through 0, none nearer to it than 0.5.

    With a random unit normal u, noise z ~ N(0, 1) and s = ±1 by class

        x = z + (s · (|z·u| + 0.5) − z·u) · u,    so that s · x·u = |z·u| + 0.5

    Always the draw of `default_rng(0)`: float32[n, 20], the classes in turn. A linear model reaches 100 %.
    """
    rng = np.random.default_rng(0)
    normal = rng.normal(size=_PLANE_FEATURES)
    normal /= np.sqrt(np.square(normal).sum())
    y = np.arange(_TRAIN + _TEST, dtype=np.int32) % 2
    noise = rng.normal(size=(y.size, _PLANE_FEATURES))
    height = (noise * normal).sum(1)
    wanted = (2 * y - 1) * (np.abs(height) + _MARGIN)
    return _parted(noise + (wanted - height)[:, None] * normal, y, _TRAIN)


def describe_two_spirals(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (2,), 2, _TRAIN, _TEST)


def load_two_spirals(name: str, data_dir: str) -> Arrays:
    """Two interlocked spirals of three turns: not separable by anything close to linear.

    The curves of Lang and Witbrock 1988 ("Learning to tell two spirals apart"), which has i = 0, ..., 96 and no
    noise; here i ~ U[0, 96], noise ~ N(0, 0.1²), and the second spiral is the first turned by half a turn:

        r = 6.5 · (104 − i) / 104,    φ = π · i / 16,    x = ±r · (sin φ, cos φ) + noise

    Always the draw of `default_rng(0)`: float32[n, 2], the classes in turn.
    """
    rng = np.random.default_rng(0)
    y = np.arange(_TRAIN + _TEST, dtype=np.int32) % 2
    i = rng.uniform(0, 96, size=y.size)
    radius = (1 - 2 * y) * 6.5 * (104 - i) / 104
    angle = np.pi * i / 16
    curve = radius[:, None] * np.stack([np.sin(angle), np.cos(angle)], axis=1)
    return _parted(curve + rng.normal(scale=_SPIRAL_NOISE, size=curve.shape), y, _TRAIN)


def describe_madelon_like(name: str, data_dir: str) -> DatasetInfo:
    return DatasetInfo(name, (_MADELON_FEATURES,), 2, _MADELON_TRAIN, _MADELON_TEST)


def load_madelon_like(name: str, data_dir: str) -> Arrays:
    """Madelon's recipe, drawn anew: 32 clusters on the vertices of a cube, 16 a class, and 480 probes of noise.

    scikit-learn's `make_classification` follows Guyon 2003 ("Design of experiments for the NIPS 2003 variable
    selection benchmark"): 5 informative features, 15 linear combinations of them, 480 that mean nothing, all
    shuffled; 1 % of the labels are redrawn. Always the draw of `RandomState(0)`: float32[n, 500], standard deviation
    about 1, where Madelon has integers up to 999. A linear model finds more here than in Madelon (76 against 58 %).
    """
    from sklearn.datasets import make_classification

    x, y = make_classification(
        n_samples=_MADELON_TRAIN + _MADELON_TEST, n_features=_MADELON_FEATURES, n_informative=5, n_redundant=15,
        n_repeated=0, n_classes=2, n_clusters_per_class=16, class_sep=1.0, flip_y=0.01, random_state=0,
    )  # fmt: skip
    return _parted(x, y.astype(np.int32), _MADELON_TRAIN)


def _parted(x: np.ndarray, y: np.ndarray, train: int) -> Arrays:
    x = x.astype(np.float32)
    return Arrays(x[:train], y[:train], x[train:], y[train:])
