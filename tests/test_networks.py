"""Networks against their equations in NumPy, in evaluation and with random variables, statistics among them."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from sparse_jax.models.forms import LENETS, inverted_blocks
from sparse_jax.models.lenet import response_normalization
from sparse_jax.models.registry import make_model
from tests.test_models import LAYOUT, resolved, variables_of
from tests.tiny import LAYERS


def rectify(i):
    """An activation function that tells its index, in NumPy and in jax: two slopes."""
    return lambda x: x + (1 + i % 5) / 6 * abs(x)


def gate(x):
    """A function to (0, 1) that is not the sigmoid, which could also be written into the model."""
    return 1 / 2 + x / (2 + 2 * abs(x))


def draw(path, shape, rng):
    """A variable under which signals neither fade nor explode, and nothing is 0 or 1."""
    match path[-1].key:
        case "kernel":
            drawn = rng.normal(size=shape) / math.sqrt(math.prod(shape[:-1]))
        case "scale":
            drawn = rng.uniform(0.5, 1.5, shape)
        case "var":
            drawn = rng.uniform(0.3, 0.9, shape)
        case _:
            drawn = rng.normal(size=shape) / 3
    return drawn.astype(np.float32)


class Network:
    """A model with drawn variables and images: `x`, its logits `out`, and the variables of its layers by their name."""

    def __init__(self, name, shape, activation=rectify, scale=1.0, **settings):
        rng = np.random.default_rng(0)
        model = make_model(resolved(name, **settings), 3, activation, gate, LAYERS)
        self.x = (scale * rng.normal(size=(2, *shape))).astype(np.float32)
        shapes = variables_of(model, shape)
        variables = jax.tree_util.tree_map_with_path(lambda path, leaf: draw(path, leaf.shape, rng), shapes)
        self.out = jax.jit(lambda variables, x: model.apply(variables, x, train=False))(variables, self.x)
        self.params, self.statistics = variables["params"], variables.get("batch_stats")

    def conv(self, name, x, stride=1, padding="SAME"):
        kernel = self.params[name]["kernel"]
        groups = x.shape[-1] // kernel.shape[2]
        y = lax.conv_general_dilated(
            x, kernel, (stride, stride), padding, dimension_numbers=LAYOUT, feature_group_count=groups
        )
        return np.asarray(y) + self.params[name].get("bias", np.float32(0))

    def dense(self, name, x):
        return x @ self.params[name]["kernel"] + self.params[name]["bias"]

    def norm(self, name, x):
        """By the given statistics, or over the last axis where there are none."""
        if self.statistics is None:
            x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)
        else:
            x = (x - self.statistics[name]["mean"]) / np.sqrt(self.statistics[name]["var"] + 1e-5)
        return x * self.params[name]["scale"] + self.params[name]["bias"]

    def check(self, expected):
        largest = abs(expected).max()
        assert abs(expected[0] - expected[1]).max() > 0.1 * largest  # much of the images arrives
        np.testing.assert_allclose(self.out, expected, rtol=0, atol=1e-4 * largest)


def pool(x, partial):
    """The maximum of 2 × 2 next to one another, and of those that are `partial` at the far edges."""
    rows, columns = (range(0, side if partial else side - side % 2, 2) for side in x.shape[1:3])
    return np.stack([np.stack([x[:, i : i + 2, j : j + 2].max((1, 2)) for j in columns], 1) for i in rows], 1)


def response_normalized(x):
    y = np.empty_like(x)
    for c in range(x.shape[-1]):
        near = x[..., max(0, c - 4) : c + 5]
        y[..., c] = x[..., c] / (1 + 0.001 / 9 * (near**2).sum(-1)) ** 0.75
    return y


def test_response_normalisation_is_that_of_its_equation():
    x = 10 * np.random.default_rng(0).normal(size=(2, 1, 3, 12)).astype(np.float32)
    np.testing.assert_allclose(response_normalization(jnp.array(x)), response_normalized(x), rtol=1e-5)


@pytest.mark.parametrize("name", LENETS)
def test_the_lenets_are_those_of_their_equations(name):
    # so bright that response normalisation matters, and the last pool leaves out the last of 11 or 5 rows
    net = Network(name, (22, 20, 2), scale=30.0)
    padding = "SAME" if name == "lenet5_alford" else "VALID"
    around = response_normalized if name == "lenet5_alford" else lambda x: x
    x = around(pool(rectify(0)(net.conv("conv_0", net.x, padding=padding)), partial=False))
    x = pool(around(rectify(1)(net.conv("conv_1", x, padding=padding))), partial=False)
    x = rectify(2)(net.dense("dense_0", x.reshape(2, -1)))
    if name == "lenet5_safs":
        x = rectify(3)(net.dense("dense_1", x))
    net.check(net.dense("output", x))


def test_vgg11_is_that_of_its_equations():
    net = Network("vgg11", (11, 6, 2), width=1 / 16)
    x = net.x
    for i in range(8):
        x = rectify(i)(net.norm(f"norm_{i}", net.conv(f"conv_{i}", x)))
        if i in (0, 1, 3, 5, 7):
            x = pool(x, partial=True)  # to 6 × 3, 3 × 2, 2 × 1 and 1 × 1
    net.check(net.dense("output", x.mean((1, 2))))


def test_the_wide_resnet_is_that_of_its_equations():
    net = Network("wide_resnet", (8, 7, 2), depth=10, width=1.0)
    index = itertools.count()

    def activated(name, x):
        return rectify(next(index))(net.norm(f"{name}_norm", x))

    x = net.conv("conv_0", net.x)
    for stage, stride in enumerate((1, 2, 2)):
        name = f"block_{stage}_0"
        y = activated(f"{name}_conv_0", x)
        shortcut = net.conv(f"{name}_shortcut", y, stride) if stage else x
        y = activated(f"{name}_conv_1", net.conv(f"{name}_conv_0", y, stride))
        x = shortcut + net.conv(f"{name}_conv_1", y)
    net.check(net.dense("output", activated("output", x).mean((1, 2))))


def test_efficientnet_is_that_of_its_equations():
    net = Network("efficientnet_b0", (8, 8, 2), width=1 / 8)
    index = itertools.count()

    def act(x):
        return rectify(next(index))(x)

    def normalized(name, x, stride=1):
        return net.norm(f"{name}_norm", net.conv(name, x, stride))

    x = act(normalized("conv_0", net.x))
    for i, block in enumerate(inverted_blocks(1 / 8)):
        name = f"block_{i}"
        y = act(normalized(f"{name}_expand", x)) if i else x
        y = act(normalized(f"{name}_depthwise", y, block.stride))
        held = act(net.dense(f"{name}_squeeze", y.mean((1, 2))))
        y = y * gate(net.dense(f"{name}_excite", held))[:, None, None]
        y = normalized(f"{name}_project", y)
        x = x + y if block.stride == 1 and block.inputs == block.channels else y
    x = act(normalized("conv_head", x))
    net.check(net.dense("output", x.mean((1, 2))))


def test_the_transformer_is_that_of_its_equations():
    net = Network("transformer", (8, 12, 2), lambda i: jnp.tanh, depth=1, width=1 / 8, heads=2, patch_size=4)
    patches = [net.x[:, i : i + 4, j : j + 4].reshape(2, -1) for i in (0, 4) for j in (0, 4, 8)]
    token = np.broadcast_to(net.params["class_token"], (2, 1, 8))
    x = np.concatenate([token, net.dense("embedding", np.stack(patches, axis=1))], axis=1) + net.params["positions"]
    seen = net.norm("block_0_attention_norm", x)
    query, key, value = (net.dense(f"block_0_{name}", seen) for name in ("query", "key", "value"))
    mixed = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = np.exp(query[..., head] @ key[..., head].swapaxes(1, 2) / np.sqrt(4))
        mixed.append(weights / weights.sum(-1, keepdims=True) @ value[..., head])
    x = x + net.dense("block_0_out", np.concatenate(mixed, axis=-1))
    y = np.tanh(net.dense("block_0_dense_0", net.norm("block_0_dense_norm", x)))
    x = x + net.dense("block_0_dense_1", y)
    net.check(net.dense("output", net.norm("output_norm", x[:, 0])))
