"""Augmentation of the images of training batches: raw values, in the jitted step, before normalisation.

An augmentation is a composition of small random maps of one image, each with a key of its own:

    (key, image float32[height, width, channels], levels) -> image of that shape, within the levels

What a map brings in from outside the image is black, the lowest level, or the nearest pixel.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from sparse_jax.errors import unknown

BORDER = 1 / 8  # of the height and of the width, on every side, from which `crop` cuts: 4 pixels of 32
MOST_TURN = 10.0  # degrees
MOST_SHIFT = 0.1  # of the height and of the width
MOST_BRIGHTNESS = 63 / 255  # of the distance between the levels
CONTRAST = (0.2, 1.8)


class Levels(NamedTuple):
    """What the values of all training images lie between, float32[]: black and white."""

    low: jax.Array | np.ndarray
    high: jax.Array | np.ndarray


def levels_of(x_train: np.ndarray) -> Levels:
    """The least and the greatest value of the training examples, of any shape."""
    return Levels(np.float32(x_train.min()), np.float32(x_train.max()))


Map = Callable[[jax.Array, jax.Array, Levels], jax.Array]


def make_augment(name: str) -> Callable[[jax.Array, jax.Array, Levels], jax.Array]:
    """The augmentation `name`: (key, x[batch, height, width, channels], levels) -> float32 of that shape.

    Every example has a key, so that the other examples do not matter. `none` returns x as it is.

    Raises:
      UserError: the name is unknown.
    """
    if name not in AUGMENTATIONS:
        raise unknown("augmentation", name, AUGMENTATIONS)
    maps = AUGMENTATIONS[name]

    def augment_one(key, x, levels):
        image = x.astype(jnp.float32)
        for random_map, map_key in zip(maps, jax.random.split(key, len(maps)), strict=True):
            image = random_map(map_key, image, levels)
        return image

    def augment(key, x, levels):
        if not maps:
            return x
        return jax.vmap(augment_one, in_axes=(0, 0, None))(jax.random.split(key, x.shape[0]), x, levels)

    return augment


def crop(key: jax.Array, image: jax.Array, levels: Levels) -> jax.Array:
    """The image moved by up to an eighth of its sides down or up and right or left, every move as likely.

    As a random crop of the image with black borders, 4 pixels for 32 × 32 (He et al. 2016, arXiv:1512.03385, section
    4.2), in proportion for others, and at least 1.
    """
    down, right = (max(1, round(BORDER * side)) for side in image.shape[:2])
    padded = jnp.pad(image, ((down, down), (right, right), (0, 0)), constant_values=levels.low)
    top, left = jax.random.randint(key, (2,), 0, jnp.array([2 * down + 1, 2 * right + 1]))
    return lax.dynamic_slice(padded, (top, left, 0), image.shape)


def flip(key: jax.Array, image: jax.Array, levels: Levels) -> jax.Array:
    """The image or, with probability 1/2, its mirror image: left is right."""
    column = jnp.arange(image.shape[1])
    column = jnp.where(jax.random.bernoulli(key), image.shape[1] - 1 - column, column)
    return image.at[:, column].get(mode="promise_in_bounds")  # ten times faster on CPUs than to choose between images


def rotate_shift(key: jax.Array, image: jax.Array, levels: Levels) -> jax.Array:
    """The image turned by up to ±10° about its middle and moved by up to ±10 % of its height and width; uniform.

    One bilinear resampling, to fractions of a pixel, where the nearest pixel fills what comes from outside: as Keras'
    ImageDataGenerator (rotation_range=10, width_shift_range=height_shift_range=0.1) has it.
    """
    turn_key, shift_key = jax.random.split(key)
    turn = jnp.deg2rad(jax.random.uniform(turn_key, minval=-MOST_TURN, maxval=MOST_TURN))
    shift = jax.random.uniform(shift_key, (2,), minval=-MOST_SHIFT, maxval=MOST_SHIFT)
    cos, sin = jnp.cos(turn), jnp.sin(turn)
    return affine(image, ((cos, -sin), (sin, cos)), (shift[0] * image.shape[0], shift[1] * image.shape[1]))


def brightness(key: jax.Array, image: jax.Array, levels: Levels) -> jax.Array:
    """x + δ, δ ~ U(−63/255, 63/255) of the distance between the levels, clipped to them."""
    share = jax.random.uniform(key, minval=-MOST_BRIGHTNESS, maxval=MOST_BRIGHTNESS)
    return jnp.clip(image + share * (levels.high - levels.low), levels.low, levels.high)


def contrast(key: jax.Array, image: jax.Array, levels: Levels) -> jax.Array:
    """m + f (x − m), m the mean of the channel in the image, f ~ U(0.2, 1.8), clipped to the levels."""
    factor = jax.random.uniform(key, minval=CONTRAST[0], maxval=CONTRAST[1])
    mean = image.mean((0, 1), keepdims=True)
    return jnp.clip(mean + factor * (image - mean), levels.low, levels.high)


def affine(
    image: jax.Array, matrix: tuple[tuple[jax.Array, jax.Array], ...], shift: tuple[jax.Array, jax.Array]
) -> jax.Array:
    """The image that shows at p what the given one has at A (p − m + t) + m, m its middle; places are (row, column).

    Bilinear between four pixels; what lies outside has the value of the nearest pixel.

    Args:
      image: float32[height, width, channels].
      matrix: A, by rows; float32[] each.
      shift: t, in pixels.
    """
    height, width, _ = image.shape
    middle = (height - 1) / 2, (width - 1) / 2
    down = jnp.arange(height)[:, None] - middle[0] + shift[0]
    right = jnp.arange(width)[None, :] - middle[1] + shift[1]
    row, column = (a * down + b * right + half for (a, b), half in zip(matrix, middle, strict=True))
    return _bilinear(image, jnp.clip(row, 0, height - 1), jnp.clip(column, 0, width - 1))


def _bilinear(image: jax.Array, row: jax.Array, column: jax.Array) -> jax.Array:
    """The image at fractional places within it, float32[height, width] each."""
    height, width, channels = image.shape
    top, left = row.astype(jnp.int32), column.astype(jnp.int32)
    bottom, right = jnp.minimum(top + 1, height - 1), jnp.minimum(left + 1, width - 1)
    pixels = image.reshape(height * width, channels)

    def at(row, column):  # one index a pixel, which CPUs gather ten times faster than map_coordinates does
        return pixels.at[row * width + column].get(mode="promise_in_bounds")

    below, beyond = (row - top)[..., None], (column - left)[..., None]
    upper = (1 - beyond) * at(top, left) + beyond * at(top, right)
    lower = (1 - beyond) * at(bottom, left) + beyond * at(bottom, right)
    return (1 - below) * upper + below * lower


AUGMENTATIONS: dict[str, tuple[Map, ...]] = {
    "none": (),
    "crop": (crop,),
    "flip": (flip,),
    "crop_flip": (crop, flip),  # the usual one of CIFAR-10
    "rotate_shift": (rotate_shift,),
    "dubowski": (rotate_shift, flip),  # Dubowski 2020, arXiv:2010.05943
    "color_jitter": (brightness, contrast),
    # Alford et al. 2018, arXiv:1810.00299, after TensorFlow's CIFAR-10 tutorial. That cuts 24 × 24 pixels out of the
    # image instead, and does not clip; then it standardises every image, as --normalization=per_sample does.
    "alford": (crop, flip, brightness, contrast),
}
