"""Augmentation: each map by hand and by what it draws, the presets as compositions, and what of a run sees them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage, stats

from sparse_jax.config import AUGMENTATIONS as NAMES
from sparse_jax.data import augmentation
from sparse_jax.data.augmentation import AUGMENTATIONS, Levels, affine, levels_of, make_augment
from sparse_jax.data.batches import batch_at
from sparse_jax.errors import UserError
from sparse_jax.training.gradients import batch, training_batch
from sparse_jax.training.parts import AUGMENT, ORDER, make_parts
from tests.test_laws import advance, cohort_of, compiled, different_runs, equal
from tests.tiny import SIZES, make_config, make_data, make_hyper, make_tiny_problem

KEY = jax.random.key(7)
BYTES = Levels(0.0, 255.0)
RANDOM = [name for name in NAMES if name != "none"]
IDENTITY = ((1.0, 0.0), (0.0, 1.0))
MANY = 8100


def images(dtype=np.uint8, shape=(6, 9, 8, 3)):
    values = np.random.default_rng(0).integers(0, 256, shape)
    return jnp.asarray(values if dtype == np.uint8 else values / 64 - 2, dtype)


def of_many_keys(random_map, image, levels=BYTES, count=MANY):
    """What a map makes of one image with many keys."""
    keys = jax.random.split(KEY, count)
    return np.asarray(jax.jit(jax.vmap(lambda key: random_map(key, jnp.asarray(image, jnp.float32), levels)))(keys))


def is_uniform(draws, low, high):
    assert low <= draws.min()
    assert draws.max() <= high
    return stats.kstest(draws, "uniform", (low, high - low)).pvalue > 1e-3


def grey(rows):
    return np.asarray(rows, np.float32)[..., None]


# --- every preset ----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
@pytest.mark.parametrize("name", RANDOM)
def test_shape_and_range_are_kept_whatever_the_key(name, dtype):
    x, augment = images(dtype), jax.jit(make_augment(name))
    levels = levels_of(np.asarray(x))
    for seed in range(30):
        out = np.asarray(augment(jax.random.key(seed), x, levels))
        assert (out.dtype, out.shape) == (np.float32, x.shape)
        assert out.min() >= levels.low - 1e-4
        assert out.max() <= levels.high + 1e-4


@pytest.mark.parametrize("name", RANDOM)
def test_the_units_of_the_pixels_do_not_matter(name):
    """Bytes, the same as numbers between −2 and 2, and images of 0..16 as scikit-learn's digits are."""
    x, augment = images().astype(jnp.float32), jax.jit(make_augment(name))
    expected = np.asarray(augment(KEY, x, Levels(0.0, 255.0)))
    for scale, shift in ((4 / 255, -2.0), (16 / 255, 0.0)):
        out = augment(KEY, x * scale + shift, Levels(shift, 255 * scale + shift))
        np.testing.assert_allclose((np.asarray(out) - shift) / scale, expected, rtol=1e-4, atol=0.01)


def test_levels_are_those_of_all_training_images():
    assert levels_of(np.arange(3, 20, dtype=np.uint8).reshape(1, 17, 1, 1)) == (3.0, 19.0)


def test_a_crop_of_a_small_image_moves_by_one_pixel():
    image = np.arange(1, 10, dtype=np.float32).reshape(3, 3, 1)
    padded = np.pad(image, ((1, 1), (1, 1), (0, 0)), constant_values=-5)
    crops = {padded[i : i + 3, j : j + 3].tobytes() for i in range(3) for j in range(3)}
    assert {out.tobytes() for out in of_many_keys(augmentation.crop, image, Levels(-5.0, 9.0), 200)} == crops


@pytest.mark.parametrize("name", RANDOM)
def test_an_example_has_its_own_key_and_its_neighbours_do_not_matter(name):
    augment = jax.jit(make_augment(name))
    x = jnp.tile(images()[:1], (8, 1, 1, 1))
    out = np.asarray(augment(KEY, x, BYTES))
    equal(out, augment(KEY, x, BYTES))
    assert len({image.tobytes() for image in out}) > 1
    assert (out != np.asarray(augment(jax.random.key(8), x, BYTES))).any()
    others = x.at[1:].set(images()[1])
    equal(out[0], augment(KEY, others, BYTES)[0])


def test_none_is_the_batch_as_it_is():
    x = images()
    assert make_augment("none")(KEY, x, BYTES) is x


def test_an_unknown_name_is_refused():
    with pytest.raises(UserError, match=r"augmentation 'crop_flop'.*'crop_flip'"):
        make_augment("crop_flop")


def test_the_presets_are_what_they_say():
    composed = {name: [one.__name__ for one in maps] for name, maps in AUGMENTATIONS.items()}
    assert composed == {
        "none": [],
        "crop": ["crop"],
        "flip": ["flip"],
        "crop_flip": ["crop", "flip"],
        "rotate_shift": ["rotate_shift"],
        "dubowski": ["rotate_shift", "flip"],
        "color_jitter": ["brightness", "contrast"],
        "alford": ["crop", "flip", "brightness", "contrast"],
    }


@pytest.mark.parametrize("name", ["crop_flip", "alford"])
def test_a_preset_is_the_composition_of_its_maps_each_with_a_key(name):
    x = images()
    for image, key, out in zip(x, jax.random.split(KEY, len(x)), make_augment(name)(KEY, x, BYTES), strict=True):
        expected = image.astype(jnp.float32)
        for one, map_key in zip(AUGMENTATIONS[name], jax.random.split(key, len(AUGMENTATIONS[name])), strict=True):
            expected = one(map_key, expected, BYTES)
        np.testing.assert_allclose(out, expected, rtol=1e-6, atol=1e-4)


# --- the maps --------------------------------------------------------------------------------------


def test_half_of_the_images_are_flipped():
    out = of_many_keys(augmentation.flip, grey([[1, 2], [3, 4]]))[..., 0]
    flipped = (out == [[2, 1], [4, 3]]).all((1, 2))
    assert (flipped | (out == [[1, 2], [3, 4]]).all((1, 2))).all()
    assert abs(flipped.mean() - 0.5) < 3.5 * 0.5 / MANY**0.5


@pytest.mark.parametrize("black", [0.0, -1.5])
def test_every_crop_is_as_likely(black):
    image = np.arange(1, 17 * 32 * 2 + 1, dtype=np.float32).reshape(17, 32, 2)
    padded = np.pad(image, ((2, 2), (4, 4), (0, 0)), constant_values=black)
    crops = {padded[i : i + 17, j : j + 32].tobytes(): (i, j) for i in range(5) for j in range(9)}
    assert len(crops) == 45
    found = np.zeros((5, 9), int)
    for out in of_many_keys(augmentation.crop, image, Levels(black, 200.0)):
        found[crops[out.tobytes()]] += 1
    assert stats.chisquare(found.ravel()).pvalue > 1e-3


def test_an_image_that_does_not_move_is_the_same_to_the_last_bit():
    for shape in ((8, 8, 1), (9, 6, 3), (1, 1, 1)):
        image = images(np.float32, (1, *shape))[0]
        equal(affine(image, IDENTITY, (0.0, 0.0)), image)


@pytest.mark.parametrize(
    ("shift", "expected"),
    [
        ((1.0, 0.0), [[4, 5, 6], [7, 8, 9], [7, 8, 9]]),  # what is one row below; the last one is repeated
        ((0.0, -2.0), [[1, 1, 1], [4, 4, 4], [7, 7, 7]]),
        ((0.0, 0.5), [[1.5, 2.5, 3], [4.5, 5.5, 6], [7.5, 8.5, 9]]),
        ((-0.25, 0.0), [[1, 2, 3], [3.25, 4.25, 5.25], [6.25, 7.25, 8.25]]),
    ],
)
def test_shifts_by_hand(shift, expected):
    out = affine(jnp.asarray(grey([[1, 2, 3], [4, 5, 6], [7, 8, 9]])), IDENTITY, shift)
    np.testing.assert_array_equal(out[..., 0], expected)


def test_a_quarter_turn_by_hand():
    """At (0, 0), which is (−1, −1) from the middle, stands what is at A (−1, −1) = (1, −1) from it: the 7."""
    out = affine(jnp.asarray(grey([[1, 2, 3], [4, 5, 6], [7, 8, 9]])), ((0.0, -1.0), (1.0, 0.0)), (0.0, 0.0))
    np.testing.assert_array_equal(out[..., 0], [[7, 4, 1], [8, 5, 2], [9, 6, 3]])


@pytest.mark.parametrize("shape", [(8, 8, 1), (32, 32, 3), (7, 12, 2)])
def test_affine_maps_equal_scipy(shape):
    rng = np.random.default_rng(1)
    for _ in range(10):
        image, matrix = rng.normal(size=shape).astype("f4"), np.eye(2) + rng.normal(scale=0.3, size=(2, 2))
        middle, shift = (np.array(shape[:2]) - 1) / 2, rng.normal(scale=3, size=2)
        offset = middle - matrix @ (middle - shift)
        channels = [
            ndimage.affine_transform(np.float64(image[..., c]), matrix, offset, order=1, mode="nearest")
            for c in range(shape[2])
        ]
        ours = affine(jnp.asarray(image), tuple(map(tuple, np.float32(matrix))), tuple(np.float32(shift)))
        np.testing.assert_allclose(ours, np.stack(channels, -1), atol=2e-4)


def test_turns_and_shifts_are_uniform():
    """Of an image whose values are its own rows and columns a pixel says where it came from."""
    height, width = 41, 61
    places = np.stack(np.mgrid[:height, :width], -1)
    out = of_many_keys(augmentation.rotate_shift, places, Levels(0.0, 100.0), 1000)
    down, right = (out[:, 21, 30] - out[:, 20, 30]), (out[:, 20, 31] - out[:, 20, 30])  # the columns of the rotation
    np.testing.assert_allclose(np.stack([down[:, 0], down[:, 1]]), [right[:, 1], -right[:, 0]], atol=1e-4)
    np.testing.assert_allclose((down**2).sum(1), 1, atol=1e-4)
    assert is_uniform(np.degrees(np.arctan2(down[:, 1], down[:, 0])), -10.01, 10.01)
    from_middle = out[:, 20, 30] - [20, 30]  # A t
    shift = np.einsum("nij,ni->nj", np.stack([down, right], -1), from_middle)
    assert is_uniform(shift[:, 0], -4.101, 4.101)
    assert is_uniform(shift[:, 1], -6.101, 6.101)
    assert abs(np.corrcoef(shift.T)[0, 1]) < 0.15


def test_brightness_is_one_uniform_number_for_the_whole_image():
    image = np.array([[[100, 120], [140, 150]]])
    added = of_many_keys(augmentation.brightness, image) - image
    np.testing.assert_allclose(added, np.broadcast_to(added[:, :1, :1, :1], added.shape), atol=1e-4)
    assert is_uniform(added[:, 0, 0, 0], -63.01, 63.01)
    ends = of_many_keys(augmentation.brightness, np.array([[[0], [255]]]))
    assert ends.min() == 0
    assert ends.max() == 255


def test_contrast_is_about_the_mean_of_every_channel():
    image = np.array([[[100, 60], [120, 100]]])  # means 110 and 80
    out = of_many_keys(augmentation.contrast, image)
    factor = (out[:, 0, 1, 0] - out[:, 0, 0, 0]) / 20
    assert is_uniform(factor, 0.1999, 1.8001)
    for channel, mean, away in ((0, 110, 10), (1, 80, 20)):
        np.testing.assert_allclose(out[:, 0, 0, channel], mean - away * factor, atol=1e-3)
        np.testing.assert_allclose(out[:, 0, 1, channel], mean + away * factor, atol=1e-3)
    ends = of_many_keys(augmentation.contrast, np.array([[[0], [0], [255]]]))
    assert (ends.min(), ends.max()) == (0, 255)


# --- in training -----------------------------------------------------------------------------------


def parts_of(config):
    return make_parts(config, make_tiny_problem(config))


def test_a_training_batch_is_augmented_raw_and_anew_at_every_step():
    config, data = make_config("set", augmentation="crop_flip"), make_data()
    parts, key = parts_of(config), jax.random.key(3)
    for step in map(jnp.int32, (0, 5)):
        raw, labels = batch_at(data, jax.random.fold_in(key, ORDER), step, n=SIZES[0], batch_size=8)
        augment_key = jax.random.fold_in(jax.random.fold_in(key, AUGMENT), step)
        augmented = make_augment("crop_flip")(augment_key, raw, data.levels)
        x, y = training_batch(parts, key, step, data)
        equal((x, y), (parts.normalize(data.normalization, augmented), labels))
        equal(batch(parts, key, step, data), (parts.normalize(data.normalization, raw), labels))
    same = data._replace(x=jnp.ones_like(data.x).at[:, 0].set(5))
    first, second = (training_batch(parts, key, jnp.int32(step), same)[0] for step in (0, 1))
    assert (first != second).any()


def test_the_untrained_network_and_what_is_evaluated_see_the_images_as_they_are():
    plain, augmented = (
        make_config("set", initial_topology="snip", augmentation=name) for name in ("none", "crop_flip")
    )
    hyper, data = make_hyper(plain), make_data()
    starts = [compiled(config).init(hyper, data) for config in (plain, augmented)]
    equal(*starts)
    equal(*(compiled(config).validate(starts[0], data) for config in (plain, augmented)))
    ends = [compiled(config).steps(starts[0], hyper, data, jnp.int32(1)) for config in (plain, augmented)]
    assert ends[0].running.loss != ends[1].running.loss


def test_augmentation_does_not_look_at_the_neighbours_of_a_lane():
    a, b, c, d = different_runs(config := make_config("set", augmentation="alford"))
    first = advance(*cohort_of(config, "vmap", 1, [a, b, c, d]))
    second = advance(*cohort_of(config, "vmap", 1, [d, d, a, d]))
    equal(jax.tree.map(lambda leaf: leaf[0], first), jax.tree.map(lambda leaf: leaf[2], second))
